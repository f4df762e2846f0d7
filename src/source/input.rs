//! An open source: bytes at any place for Parquet, decompressed bytes in order for text.

use crate::error::{Error, Result};
use std::io::Read;

/// An open source. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Input {}

impl Input {
    /// The decompressed bytes, in order.
    pub fn reader(&self) -> Result<Box<dyn Read + Send>> {
        Err(Error::Internal("to come".into()))
    }

    /// An error if the source was changed since it was found.
    pub fn unchanged(&self) -> Result<()> {
        Ok(())
    }
}
