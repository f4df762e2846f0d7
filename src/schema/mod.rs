//! The table's contract: which columns it has, and how rows of another shape become rows of the table.
//!
//! Promises: no value is ever changed. [`normalise`] drops only how values are laid out (dictionaries, large offsets,
//! views), [`widen`] grows a contract only where every old and new value keeps its exact value, and [`adapt`] moves a
//! batch into the contract by checked casts: what does not fit is an error that names the column, never a null.

mod adapt;
mod normalise;
mod widen;
mod width;

pub use adapt::adapt;
pub use normalise::{check_names, is_json, normalise, stored, viewed};
pub use widen::widen;
pub use width::{batch_rows, check_width, null_bytes};

#[cfg(test)]
pub(crate) mod arbitrary;
