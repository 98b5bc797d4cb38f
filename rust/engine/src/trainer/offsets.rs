//! Where the elements of strided arrays lie.

/// Where the elements of a row lie, in bytes from its start.
#[derive(Debug)]
pub(super) enum Offsets {
    /// One run of equal steps.
    Run { length: usize, step: isize },
    /// Anything else, one by one.
    List(Vec<isize>),
}

impl Offsets {
    /// Of rows of such lengths and steps.
    pub fn new(shape: &[usize], strides: &[isize]) -> Self {
        let length: usize = shape.iter().product();
        let mut run = Some(strides.last().copied().unwrap_or(0));
        for axis in (1..shape.len()).rev() {
            if strides[axis - 1] != strides[axis] * shape[axis] as isize {
                run = None;
            }
        }
        if let Some(step) = run {
            return Self::Run { length, step };
        }
        let mut list = vec![0];
        for (&count, &stride) in shape.iter().zip(strides) {
            list =
                list.iter().flat_map(|&offset| (0..count as isize).map(move |place| offset + place * stride)).collect();
        }
        Self::List(list)
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Run { length, .. } => *length,
            Self::List(list) => list.len(),
        }
    }

    /// Whether elements of so many bytes lie side by side.
    pub fn is_contiguous(&self, size: usize) -> bool {
        matches!(self, Self::Run { length, step } if *length == 1 || *step == size as isize)
    }

    /// Calls for each, from a row's start on.
    #[inline(always)]
    pub fn for_each(&self, start: isize, mut body: impl FnMut(isize)) {
        match self {
            Self::Run { length, step } => {
                (0..*length as isize).for_each(|place| body(start + place * step));
            }
            Self::List(list) => list.iter().for_each(|offset| body(start + offset)),
        }
    }
}

/// The index along each axis of the element at a place in the order of the rows.
pub(super) fn unravel(mut place: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (axis, &length) in shape.iter().enumerate().rev() {
        index[axis] = place % length;
        place /= length;
    }
    index
}
