//! Objects that were changed on purpose, sealed as their writer would have.

use dedupe::ledger::seal::seal;
use serde_json::Value;

/// The text of a sealed object that was changed, with the seal that fits it; as it is, if it cannot be sealed.
pub fn resealed(text: &str) -> Vec<u8> {
    let members = text.rfind(",\n  \"check\": ").map(|at| format!("{}\n}}", &text[..at]));
    members.and_then(|members| seal(members.as_bytes())).unwrap_or_else(|| text.as_bytes().to_vec())
}

/// The bytes of a sealed object of that value; of a value that cannot be sealed, the bare text.
pub fn sealed(mut value: Value) -> Vec<u8> {
    if let Some(members) = value.as_object_mut() {
        members.shift_remove("check");
    }
    let text = serde_json::to_vec_pretty(&value).expect("a value is written");
    seal(&text).unwrap_or(text)
}
