//! Shapes with a free batch, and the rules that operations share.

use std::fmt;

/// What a value holds; the session decides the precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Floating-point numbers of the session's precision.
    Float,
    /// 32-bit integers.
    Int,
    /// Truth values.
    Bool,
}

impl Kind {
    /// Its name in programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float => "float",
            Self::Int => "int",
            Self::Bool => "bool",
        }
    }

    /// The kind of a name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Float, Self::Int, Self::Bool].into_iter().find(|kind| kind.name() == name)
    }
}

/// The length of an axis: a number, or a multiple of the batch size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dim {
    /// The length, or the factor of the batch size.
    pub count: usize,
    /// Whether the batch size multiplies it.
    pub batch: bool,
}

impl Dim {
    /// The batch size.
    pub const BATCH: Self = Self { count: 1, batch: true };

    /// A known length.
    pub const fn known(count: usize) -> Self {
        Self { count, batch: false }
    }

    /// The length for a batch size.
    pub fn resolve(self, batch: usize) -> usize {
        if self.batch { self.count * batch } else { self.count }
    }

    fn is_one(self) -> bool {
        self == Self::known(1)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.batch, self.count) {
            (false, count) => write!(formatter, "{count}"),
            (true, 1) => formatter.write_str("batch"),
            (true, count) => write!(formatter, "{count}·batch"),
        }
    }
}

/// Kind and shape of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Type {
    /// What it holds.
    pub kind: Kind,
    /// The lengths of its axes.
    pub shape: Vec<Dim>,
}

impl fmt::Display for Type {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} of shape {}", self.kind.name(), show(&self.shape))
    }
}

/// A shape as people write it.
pub fn show(shape: &[Dim]) -> String {
    let axes: Vec<String> = shape.iter().map(ToString::to_string).collect();
    match axes.len() {
        1 => format!("({},)", axes[0]),
        _ => format!("({})", axes.join(", ")),
    }
}

/// Lengths as people write them.
pub fn show_lengths(shape: &[usize]) -> String {
    show(&shape.iter().map(|&count| Dim::known(count)).collect::<Vec<_>>())
}

impl Type {
    /// A float of a shape.
    pub fn float(shape: Vec<Dim>) -> Self {
        Self { kind: Kind::Float, shape }
    }

    /// The number of axes.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Refuses another kind.
    pub fn expect_kind(&self, kind: Kind) -> Result<(), String> {
        if self.kind == kind {
            return Ok(());
        }
        Err(format!("expected {} values, got {self}", kind.name()))
    }

    /// Refuses fewer axes.
    pub fn expect_rank(&self, least: usize, what: &str) -> Result<(), String> {
        if self.rank() >= least {
            return Ok(());
        }
        Err(format!("{what} must have at least {least} axes, got shape {}", show(&self.shape)))
    }

    /// The axis that a possibly negative number names.
    pub fn axis(&self, axis: i64) -> Result<usize, String> {
        let rank = self.rank() as i64;
        if (-rank..rank).contains(&axis) {
            return Ok(if axis < 0 { axis + rank } else { axis } as usize);
        }
        Err(format!("axis {axis} is outside shape {}", show(&self.shape)))
    }
}

/// The shape that NumPy's broadcasting gives, or why there is none.
pub fn broadcast(shapes: &[&[Dim]]) -> Result<Vec<Dim>, String> {
    let rank = shapes.iter().map(|shape| shape.len()).max().unwrap_or(0);
    let mut out = vec![Dim::known(1); rank];
    for shape in shapes {
        for (to, &from) in out[rank - shape.len()..].iter_mut().zip(*shape) {
            if to.is_one() {
                *to = from;
            } else if !from.is_one() && from != *to {
                let all: Vec<String> = shapes.iter().map(|shape| show(shape)).collect();
                return Err(format!("shapes {} do not broadcast", all.join(" and ")));
            }
        }
    }
    Ok(out)
}

/// [`broadcast`] of lengths that are known to fit.
pub fn broadcast_lengths(shapes: &[&[usize]]) -> Vec<usize> {
    let rank = shapes.iter().map(|shape| shape.len()).max().unwrap_or(0);
    let mut out = vec![1; rank];
    for shape in shapes {
        for (to, &from) in out[rank - shape.len()..].iter_mut().zip(*shape) {
            if *to == 1 {
                *to = from;
            }
        }
    }
    out
}
