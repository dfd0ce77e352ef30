//! The only place that slices input: a bounded little-endian reader that knows its offset in the file.

use crate::wire::Error;

/// A cursor over `bytes`, whose first byte stands at `base` in the file (or in the uncompressed block).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    base: u64,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8], base: u64) -> Self {
        Self { bytes, base }
    }

    /// Returns the offset of the next byte.
    pub(crate) fn offset(&self) -> u64 {
        self.base
    }

    /// Returns how many bytes are left.
    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len()
    }

    /// Takes `size` bytes as a cursor of their own, so that an inner length cannot read past them.
    #[inline]
    pub(crate) fn split(&mut self, size: usize) -> Result<Self, Error> {
        let base = self.base;
        Ok(Self {
            bytes: self.take(size)?,
            base,
        })
    }

    /// Takes `size` bytes.
    #[inline]
    pub(crate) fn take(&mut self, size: usize) -> Result<&'a [u8], Error> {
        let Some((head, tail)) = self.bytes.split_at_checked(size) else {
            return Err(Error::Truncated {
                offset: self.base,
                needed: size,
                remaining: self.bytes.len(),
            });
        };
        self.bytes = tail;
        self.base = self.base.saturating_add(size as u64);
        Ok(head)
    }

    /// Takes `N` bytes as an array.
    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let Some((head, tail)) = self.bytes.split_first_chunk::<N>() else {
            return Err(Error::Truncated {
                offset: self.base,
                needed: N,
                remaining: self.bytes.len(),
            });
        };
        self.bytes = tail;
        self.base = self.base.saturating_add(N as u64);
        Ok(*head)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, Error> {
        let [byte] = self.array::<1>()?;
        Ok(byte)
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Result<u16, Error> {
        self.array().map(u16::from_le_bytes)
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Result<u32, Error> {
        self.array().map(u32::from_le_bytes)
    }

    #[inline]
    pub(crate) fn u64(&mut self) -> Result<u64, Error> {
        self.array().map(u64::from_le_bytes)
    }
}
