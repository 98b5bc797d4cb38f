//! Parts of a parameter, its gradient and its state, which one thread passes over.

use std::mem::MaybeUninit;
use std::ops::Range;

use crate::tensor::{Real, Rows};

/// Elements that one pass handles in registers: whole vectors of every width, and no alias to check.
pub(super) const LANES: usize = 16;

/// Elements summed in the parameter's own type before the sum goes on in 64 bits.
pub(super) const BLOCK: usize = 64 * LANES;

const INSIDE: &str = "arrays of the parameter's length";

/// The elements of a gradient, or those of a part.
#[derive(Clone, Copy)]
pub(super) enum Gradient<'a, E> {
    /// All of them.
    Dense(&'a [E]),
    /// Those of some rows; the others are zero.
    Rows(Held<'a, E>),
}

/// The rows that are held of a table, from some element on.
#[derive(Clone, Copy)]
pub(super) struct Held<'a, E> {
    places: &'a [i32],
    values: &'a [E],
    width: usize,
    /// The elements of the table before.
    start: usize,
}

impl<'a, E: Real> Gradient<'a, E> {
    /// Of a table of which only rows are held.
    pub fn of_rows(rows: &'a Rows) -> Self {
        let values = rows.values().elements::<E>();
        Self::Rows(Held { places: rows.places(), values, width: rows.width(), start: 0 })
    }

    /// Takes the first elements off.
    fn split_off(&mut self, count: usize) -> Self {
        match self {
            Self::Dense(all) => Self::Dense(all.split_off(..count).expect(INSIDE)),
            Self::Rows(held) => {
                let first = *held;
                held.skip(count);
                Self::Rows(first)
            }
        }
    }

    /// Takes the first elements off, `N` at most, which lie in the buffer if they do not lie in a row anyway.
    #[inline(always)]
    fn next<'b, const N: usize>(&mut self, count: usize, buffer: &'b mut Buffer<E, N>) -> &'b [E]
    where
        'a: 'b,
    {
        match self {
            Self::Dense(all) => all.split_off(..count).expect(INSIDE),
            Self::Rows(held) => held.written(count, buffer),
        }
    }
}

impl<E: Real> Held<'_, E> {
    /// Leaves out the first elements of the table.
    fn skip(&mut self, count: usize) {
        self.start += count;
        let over = self.places.partition_point(|&place| (place as usize + 1) * self.width <= self.start);
        (self.places, self.values) = (&self.places[over..], &self.values[over * self.width..]);
    }

    /// Writes the first elements of the table and leaves them out.
    #[inline(always)]
    fn written<'b, const N: usize>(&mut self, count: usize, buffer: &'b mut Buffer<E, N>) -> &'b [E] {
        let (elements, used) = buffer.zeros();
        let (elements, stop) = (&mut elements[..count], self.start + count);
        while let Some(&place) = self.places.first() {
            let row = place as usize * self.width..(place as usize + 1) * self.width;
            let (from, to) = (row.start.max(self.start), row.end.min(stop));
            if from < to {
                let values = &self.values[from - row.start..to - row.start];
                let own = from - self.start..to - self.start;
                *used = if used.start < used.end { used.start..own.end } else { own.clone() };
                elements[own].copy_from_slice(values);
            }
            if row.end > stop {
                break;
            }
            (self.places, self.values) = (&self.places[1..], &self.values[self.width..]);
        }
        self.start = stop;
        elements
    }
}

/// Where the elements of rows are written, with zeros between them.
pub(super) struct Buffer<E, const N: usize> {
    elements: [MaybeUninit<E>; N],
    /// Those that may be other than zero, or were never written.
    used: Range<usize>,
}

impl<E: Real, const N: usize> Buffer<E, N> {
    pub fn new() -> Self {
        Self { elements: [MaybeUninit::uninit(); N], used: 0..N }
    }

    /// All elements, now zero, and which of them are used again.
    #[inline(always)]
    fn zeros(&mut self) -> (&mut [E], &mut Range<usize>) {
        for element in &mut self.elements[std::mem::take(&mut self.used)] {
            element.write(E::default());
        }
        // SAFETY: each of them was written, now or before.
        (unsafe { self.elements.assume_init_mut() }, &mut self.used)
    }
}

/// A part of parameter, gradient and state.
pub(super) struct Piece<'a, E, const S: usize> {
    pub parameter: &'a mut [E],
    pub gradient: Gradient<'a, E>,
    pub state: [&'a mut [E]; S],
}

/// A part whose gradient lies in memory.
pub(super) struct Block<'a, 'b, E, const S: usize> {
    pub parameter: &'a mut [E],
    pub gradient: &'b [E],
    pub state: [&'a mut [E]; S],
}

impl<'a, E: Real, const S: usize> Piece<'a, E, S> {
    /// Takes the first elements off.
    pub fn split_off(&mut self, count: usize) -> Self {
        Self {
            parameter: self.parameter.split_off_mut(..count).expect(INSIDE),
            gradient: self.gradient.split_off(count),
            state: self.state.each_mut().map(|state| state.split_off_mut(..count).expect(INSIDE)),
        }
    }

    /// Takes the first elements off, as many as the buffer holds; `None` if there are no more.
    #[inline(always)]
    pub fn next<'b, const N: usize>(&mut self, buffer: &'b mut Buffer<E, N>) -> Option<Block<'a, 'b, E, S>>
    where
        'a: 'b,
    {
        let count = self.parameter.len().min(N);
        (count > 0).then(|| Block {
            parameter: self.parameter.split_off_mut(..count).expect(INSIDE),
            gradient: self.gradient.next(count, buffer),
            state: self.state.each_mut().map(|state| state.split_off_mut(..count).expect(INSIDE)),
        })
    }
}

/// Fewer elements than fill the registers, with zeros behind.
pub(super) struct Padded<E, const S: usize> {
    parameter: [E; LANES],
    gradient: [E; LANES],
    state: [[E; LANES]; S],
}

impl<E: Real, const S: usize> Padded<E, S> {
    /// A copy.
    pub fn new(piece: &Piece<'_, E, S>) -> Self {
        let padded = |values: &[E]| {
            let mut lanes = [E::default(); LANES];
            lanes[..values.len()].copy_from_slice(values);
            lanes
        };
        let mut buffer = Buffer::<E, LANES>::new();
        let mut gradient = piece.gradient;
        Self {
            parameter: padded(piece.parameter),
            gradient: padded(gradient.next(piece.parameter.len(), &mut buffer)),
            state: piece.state.each_ref().map(|state| padded(state)),
        }
    }

    /// All lanes.
    pub fn piece(&mut self) -> Piece<'_, E, S> {
        let state = self.state.each_mut().map(|state| state.as_mut_slice());
        Piece { parameter: &mut self.parameter, gradient: Gradient::Dense(&self.gradient), state }
    }

    /// Copies the new parameter and state back.
    pub fn put_back(&self, piece: Piece<'_, E, S>) {
        let count = piece.parameter.len();
        piece.parameter.copy_from_slice(&self.parameter[..count]);
        piece.state.into_iter().zip(&self.state).for_each(|(state, new)| state.copy_from_slice(&new[..count]));
    }
}
