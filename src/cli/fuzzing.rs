//! For the fuzzer: values as people type them.

use super::values::{KeyValues, Names, line_length, memory, size, store_options};

/// Reads `text` as each kind of value.
pub(crate) fn values(text: &str) {
    let _ = (size(text), memory(text), line_length(text));
    let _ = (text.parse::<Names>(), text.parse::<KeyValues>());
    if let Err(error) = store_options(&[text.to_owned()]) {
        assert!(text.len() < 8 || !error.to_string().contains(text), "an option may be a secret");
    }
}
