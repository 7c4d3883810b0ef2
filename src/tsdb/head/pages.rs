//! Values by number, in pages of fixed size, so that growing moves nothing and reserves little.

/// Values of a page.
const PAGE: usize = 4096;

/// As a `Vec`, but for growth.
pub(crate) struct Pages<T> {
    pages: Vec<Box<[T]>>,
    len: usize,
}

impl<T> Default for Pages<T> {
    fn default() -> Self {
        Pages { pages: Vec::new(), len: 0 }
    }
}

impl<T: Default> Pages<T> {
    #[inline]
    pub(crate) fn get(&self, at: u32) -> Option<&T> {
        self.pages.get(at as usize / PAGE)?.get(at as usize % PAGE)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        self.pages.get_mut(at as usize / PAGE)?.get_mut(at as usize % PAGE)
    }

    /// Adds a value and returns its number.
    pub(crate) fn push(&mut self, value: T) -> u32 {
        if self.len == self.pages.len() * PAGE {
            self.pages.push((0..PAGE).map(|_| T::default()).collect());
        }
        let at = self.len as u32;
        if let Some(place) = self.get_mut(at) {
            *place = value;
        }
        self.len += 1;
        at
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn bytes(&self) -> usize {
        self.pages.len() * PAGE * size_of::<T>() + self.pages.capacity() * size_of::<Box<[T]>>()
    }
}
