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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::testing::numbers;

    /// A program that uses every kind of value, its operations and numbers chosen by `seed`.
    fn program(seed: u64, operations: usize) -> Program {
        let mut program = Program::default();
        let draws = numbers(seed, 4 * operations + 12);
        let mut next = draws.iter().map(|draw| draw.abs());
        let mut draw = || next.next().expect("enough draws");
        let width = 1 + (draw() * 5.0) as usize;
        let mut values = vec![
            program.input("x", vec![Dim::BATCH, Dim::known(width)], Kind::Float).expect("a new name"),
            program.input("größe \"\\\n", vec![Dim::BATCH, Dim::known(1)], Kind::Float).expect("a new name"),
        ];
        let initializers = [
            Initializer::GlorotUniform {},
            Initializer::Constant { value: draw() },
            Initializer::TruncatedNormal { mean: draw(), stddev: draw() },
            Initializer::Orthogonal { gain: draw() },
        ];
        for (place, initializer) in initializers.into_iter().enumerate() {
            let path = format!("layer_{place}.kernel");
            let shape = if place == 1 { vec![] } else { vec![width] };
            let role = Role::parse(["kernel", "embedding", "bias", "scale"][place]).expect("a role");
            values.push(program.parameter(Parameter { path, shape, role, initializer }).expect("a new path"));
        }
        let buffer = Buffer { path: "mean".to_owned(), shape: vec![width], initializer: Initializer::Zeros {} };
        program.buffer(buffer).expect("a new path");
        let constant = [f64::NAN, f64::INFINITY, -0.0, draw(), 5e-324];
        let constant = constant.into_iter().cycle().take(width).collect();
        let constant = Constant { values: constant, shape: vec![width], kind: Kind::Float };
        values.push(program.constant(constant).expect("fitting numbers"));
        for step in 0..operations {
            program.set_scope(&format!("block_{}.dense", step / 2));
            let mut pick = || values[(draw() * values.len() as f64) as usize % values.len()];
            let (a, b) = (pick(), pick());
            let number = draw();
            let (name, inputs, attributes) = match (draw() * 6.0) as usize {
                0 => ("add", vec![a, b], json!({})),
                1 => ("maximum", vec![a, b], json!({})),
                2 => ("leaky_relu", vec![a], json!({"slope": number})),
                3 => ("elu", vec![b], json!({"alpha": number / 3.0})),
                4 => ("dropout", vec![a], json!({"rate": number})),
                _ => ("gelu", vec![b], json!({"approximate": number > 0.5})),
            };
            values.push(program.apply(name, inputs, attributes).expect("shapes that broadcast"));
        }
        let kernel = values[2];
        let twice = program.apply("add", vec![kernel, kernel], json!({})).expect("equal shapes");
        program.assign("mean", twice).expect("a fitting buffer");
        program.output("training.loss", *values.last().expect("some")).expect("a value");
        program.output("prediction", twice).expect("a value");
        program
    }

    /// All that a program says, but for numbers by their bits.
    fn contents(program: &Program) -> String {
        let bits = |value: &super::super::Value| match &value.source {
            Source::Constant(constant) => {
                let bits: Vec<u64> = constant.values.iter().map(|value| value.to_bits()).collect();
                format!("{:?} {:?} {bits:?}", constant.shape, constant.kind)
            }
            Source::Node(node) => format!("{} {:?} {:?} {}", node.name, node.inputs, node.operation, node.scope),
            other => format!("{other:?}"),
        };
        let values: Vec<String> =
            program.values().iter().map(|value| format!("{} = {}", value.ty, bits(value))).collect();
        format!("{values:#?} {:?} {:?}", program.outputs(), program.assignments())
    }

    /// Every place in a document, as paths of keys and indices.
    fn places(json: &Json, here: &str, found: &mut Vec<String>) {
        found.push(here.to_owned());
        match json {
            Json::Object(map) => map.iter().for_each(|(key, inner)| places(inner, &format!("{here}/{key}"), found)),
            Json::Array(list) => {
                list.iter().enumerate().for_each(|(index, inner)| places(inner, &format!("{here}/{index}"), found));
            }
            _ => {}
        }
    }

    /// What can be read can be written and read again.
    fn read_or_refused(text: &str) {
        match Program::from_json(text) {
            Ok(program) => {
                let again = Program::from_json(&program.to_json()).expect("what was just written");
                assert_eq!(contents(&again), contents(&program));
            }
            Err(error) => assert!(matches!(error, Error::Value(_) | Error::Missing(_)), "{error:?}"),
        }
    }

    proptest! {
        #[test]
        fn a_program_comes_back_as_it_was(seed: u64, operations in 0usize..20) {
            let program = program(seed, operations);
            let text = program.to_json();
            let again = Program::from_json(&text).expect("a whole program");
            prop_assert_eq!(contents(&again), contents(&program));
            prop_assert_eq!(again.to_json(), text);
        }

        #[test]
        fn damaged_text_is_refused_without_panic(
            seed in 0u64..8,
            edits in prop::collection::vec((0usize..10_000, any::<char>(), 0usize..3), 1..4),
        ) {
            let mut text: Vec<char> = program(seed, 4).to_json().chars().collect();
            for (place, new, way) in edits {
                let place = place % text.len();
                match way {
                    0 => text[place] = new,
                    1 => text.insert(place, new),
                    _ => text.truncate(place + 1),
                }
            }
            read_or_refused(&text.into_iter().collect::<String>());
        }

        #[test]
        fn documents_that_say_something_else_are_refused_without_panic(
            seed in 0u64..8,
            edits in prop::collection::vec((0usize..10_000, 0usize..14), 1..4),
        ) {
            let mut document: Json = serde_json::from_str(&program(seed, 6).to_json()).expect("JSON");
            let others = [
                json!(null), json!(0), json!(1), json!(-1), json!(1.5), json!(1e300), json!(u64::MAX), json!(1u64 << 39),
                json!(""), json!("float"), json!("add"), json!([]), json!({}), json!([0, 0, 0]),
            ];
            for (place, other) in edits {
                let mut all = Vec::new();
                places(&document, "", &mut all);
                let place = &all[1 + place % (all.len() - 1)];
                *document.pointer_mut(place).expect("a place") = others[other].clone();
                if !document.is_object() {
                    break;
                }
            }
            read_or_refused(&document.to_string());
        }
    }

    #[test]
    fn other_versions_and_repeated_values_are_refused() {
        let text = program(1, 2).to_json();
        let refused = |text: String, expected: &str| {
            let error = Program::from_json(&text).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        };
        refused(text.replace("\"version\":1", "\"version\":2"), "expected format version 1, got 2");
        refused(text.replace("layer_1.kernel", "layer_0.kernel"), "layer_0.kernel");
        refused(text.replace("layer_2.kernel", "layer_0.kernel"), "declared twice");
        refused(text.replace("\"version\":1", "\"version\":1,\"extra\":0"), "extra");
    }
}
