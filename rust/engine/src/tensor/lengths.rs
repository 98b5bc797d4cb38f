//! The lengths of axes.

use std::ops::{Deref, DerefMut};

use smallvec::SmallVec;

/// The lengths of a tensor's axes; up to five lie in place.
#[derive(Clone, Debug, Default)]
pub struct Lengths(SmallVec<[usize; 5]>);

impl Deref for Lengths {
    type Target = SmallVec<[usize; 5]>;
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Lengths {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl AsRef<[usize]> for Lengths {
    fn as_ref(&self) -> &[usize] {
        &self.0
    }
}

impl<T: AsRef<[usize]> + ?Sized> PartialEq<T> for Lengths {
    fn eq(&self, other: &T) -> bool {
        self.as_ref() == other.as_ref()
    }
}

impl From<&[usize]> for Lengths {
    fn from(lengths: &[usize]) -> Self {
        Self(lengths.into())
    }
}

impl FromIterator<usize> for Lengths {
    fn from_iter<I: IntoIterator<Item = usize>>(lengths: I) -> Self {
        Self(lengths.into_iter().collect())
    }
}

impl IntoIterator for Lengths {
    type Item = usize;
    type IntoIter = smallvec::IntoIter<[usize; 5]>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl From<Lengths> for Vec<usize> {
    fn from(lengths: Lengths) -> Self {
        lengths.0.into_vec()
    }
}
