//! Programs as JSON. Reading one replays its construction, so that every check runs again.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{Buffer, Constant, Dim, Initializer, Kind, Parameter, Program, Role, Source, ValueId};
use crate::{Error, Result};

/// The version of the format; a reader refuses others.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    values: Vec<Item>,
    outputs: std::collections::BTreeMap<String, ValueId>,
    assignments: std::collections::BTreeMap<String, ValueId>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Item {
    Input { name: String, shape: Vec<Option<usize>>, kind: String },
    Parameter { path: String, shape: Vec<usize>, role: String, initializer: Initializer },
    Buffer { path: String, shape: Vec<usize>, initializer: Initializer },
    Constant { shape: Vec<usize>, kind: String, values: String },
    Apply { operation: String, inputs: Vec<ValueId>, attributes: Json, scope: String },
}

impl Program {
    /// The program as JSON.
    pub fn to_json(&self) -> String {
        let document = Document {
            version: VERSION,
            values: self.values.iter().map(|value| item(&value.source, &value.ty.shape, value.ty.kind)).collect(),
            outputs: self.outputs.clone(),
            assignments: self.assignments.clone(),
        };
        serde_json::to_string(&document).expect("a program has only string keys and finite numbers")
    }

    /// The program that a JSON text describes, wholly checked.
    pub fn from_json(text: &str) -> Result<Self> {
        let document: Document =
            serde_json::from_str(text).map_err(|error| Error::value(format!("program: {error}")))?;
        if document.version != VERSION {
            return Err(Error::value(format!("program: expected format version {VERSION}, got {}", document.version)));
        }
        let mut program = Self::default();
        for (place, item) in document.values.into_iter().enumerate() {
            let id = program.replay(item)?;
            if id != place {
                return Err(Error::value(format!("program: value {place} is declared twice")));
            }
        }
        for (name, value) in &document.outputs {
            program.output(name, *value)?;
        }
        for (path, value) in &document.assignments {
            program.assign(path, *value)?;
        }
        program.set_scope("");
        Ok(program)
    }

    fn replay(&mut self, item: Item) -> Result<ValueId> {
        match item {
            Item::Input { name, shape, kind } => {
                self.input(&name, shape.into_iter().map(dim).collect(), parse_kind(&kind)?)
            }
            Item::Parameter { path, shape, role, initializer } => {
                self.parameter(Parameter { path, shape, role: Role::parse(&role)?, initializer })
            }
            Item::Buffer { path, shape, initializer } => self.buffer(Buffer { path, shape, initializer }),
            Item::Constant { shape, kind, values } => {
                self.constant(Constant { shape, kind: parse_kind(&kind)?, values: decode(&values)? })
            }
            Item::Apply { operation, inputs, attributes, scope } => {
                self.set_scope(&scope);
                self.apply(&operation, inputs, attributes)
            }
        }
    }
}

fn item(source: &Source, shape: &[Dim], kind: Kind) -> Item {
    match source {
        Source::Input(name) => Item::Input {
            name: name.clone(),
            shape: shape.iter().map(|dim| (!dim.batch).then_some(dim.count)).collect(),
            kind: kind.name().to_owned(),
        },
        Source::Parameter(parameter) => Item::Parameter {
            path: parameter.path.clone(),
            shape: parameter.shape.clone(),
            role: parameter.role.name().to_owned(),
            initializer: parameter.initializer.clone(),
        },
        Source::Buffer(buffer) => Item::Buffer {
            path: buffer.path.clone(),
            shape: buffer.shape.clone(),
            initializer: buffer.initializer.clone(),
        },
        Source::Constant(constant) => Item::Constant {
            shape: constant.shape.clone(),
            kind: kind.name().to_owned(),
            values: encode(&constant.values),
        },
        Source::Node(node) => Item::Apply {
            operation: node.name.clone(),
            inputs: node.inputs.clone(),
            attributes: node.attributes.clone(),
            scope: node.scope.clone(),
        },
    }
}

fn dim(length: Option<usize>) -> Dim {
    length.map_or(Dim::BATCH, Dim::known)
}

fn parse_kind(name: &str) -> Result<Kind> {
    Kind::parse(name).ok_or_else(|| Error::value(format!("kind must be float, int or bool, got {name:?}")))
}

/// Little-endian 64-bit numbers in base 64: exact, NaN and infinity included.
fn encode(values: &[f64]) -> String {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    BASE64_STANDARD.encode(bytes)
}

fn decode(text: &str) -> Result<Vec<f64>> {
    let bytes = BASE64_STANDARD.decode(text).map_err(|error| Error::value(format!("constant: {error}")))?;
    let (numbers, rest) = bytes.as_chunks::<8>();
    if !rest.is_empty() {
        return Err(Error::value("constant: expected 8 bytes a number"));
    }
    Ok(numbers.iter().map(|number| f64::from_le_bytes(*number)).collect())
}
