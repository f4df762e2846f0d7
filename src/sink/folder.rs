//! The names of partition folders, and what can be read off them.
//!
//! A folder is `name=value` per partition column, joined by `/`. Values are written as Hive and Spark do: null and the
//! empty text are `__HIVE_DEFAULT_PARTITION__`, characters that are unsafe in paths are percent-escaped. A value too
//! long for a file name is cut and told apart by a hash of the whole.

use percent_encoding::percent_decode_str;
use xxhash_rust::xxh3::xxh3_64;

/// What Hive calls the folder of rows without a value.
pub const NO_VALUE: &str = "__HIVE_DEFAULT_PARTITION__";

/// The longest value in a folder name; file systems allow 255 bytes for the whole name.
pub(super) const MAX_VALUE: usize = 160;

/// The folder of rows with this value of the partition `name`.
pub(super) fn folder(name: &str, value: Option<&str>) -> String {
    let value = match value {
        None | Some("") => NO_VALUE.to_owned(),
        Some(value) => with_its_end(bounded(value)),
    };
    format!("{}={value}", escaped(name))
}

fn bounded(value: &str) -> String {
    let whole = escaped(value);
    if whole.len() <= MAX_VALUE {
        return whole;
    }
    let mut cut = String::new();
    for character in value.chars() {
        let next = escaped(character.encode_utf8(&mut [0; 4]));
        if cut.len() + next.len() > MAX_VALUE - 17 {
            break;
        }
        cut.push_str(&next);
    }
    format!("{cut}~{:016x}", xxh3_64(value.as_bytes()))
}

/// Escapes what Hive escapes, and what local file systems would trip over.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\0'..='\x1f'
            | '\x7f'
            | '"'
            | '#'
            | '%'
            | '\''
            | '*'
            | '/'
            | ':'
            | '='
            | '?'
            | '\\'
            | '{'
            | '}'
            | '['
            | ']'
            | '^'
            | '<'
            | '>'
            | '|' => escaped.push_str(&format!("%{:02X}", character as u32)),
            safe => escaped.push(safe),
        }
    }
    escaped
}

/// Some stores and file systems leave a dot or a blank away at the end of a folder's name.
fn with_its_end(mut value: String) -> String {
    match value.pop() {
        Some(last @ ('.' | ' ')) => value.push_str(&format!("%{:02X}", last as u32)),
        Some(last) => value.push(last),
        None => {}
    }
    value
}

/// What a folder says of the value of the rows in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FolderValue {
    /// They have none, or it is the empty text, or the very text [`NO_VALUE`].
    Absent,
    /// This one.
    Text(String),
    /// They have one, but it may be cut: not known in full.
    Unknown,
}

/// What `folder` says of the value of the partition `name`; `None` if it is no folder of that partition.
pub(super) fn value_of(name: &str, folder: &str) -> Option<FolderValue> {
    let value = folder.strip_prefix(&escaped(name))?.strip_prefix('=')?;
    if value == NO_VALUE {
        return Some(FolderValue::Absent);
    }
    let is_hash = |text: &str| text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if value.rsplit_once('~').is_some_and(|(_, hash)| is_hash(hash)) {
        return Some(FolderValue::Unknown);
    }
    let text = percent_decode_str(value).decode_utf8().ok()?;
    Some(FolderValue::Text(text.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_value_is_read_back(name in "[a-z=%/. é]{1,8}", value in "\\PC{0,60}|[%~=a-f0-9/é]{0,200}") {
            let folder = folder(&name, Some(&value));
            let read = value_of(&name, &folder).unwrap();
            match read {
                FolderValue::Text(text) => prop_assert_eq!(text, value),
                FolderValue::Absent => prop_assert!(value.is_empty() || value == NO_VALUE),
                FolderValue::Unknown => prop_assert!(value.len() > 16),
            }
            prop_assert_eq!(value_of("other", &folder), None);
        }
    }

    #[test]
    fn no_folder_ends_in_what_stores_leave_away() {
        assert_eq!(folder("city", Some("St.")), "city=St%2E");
        assert_eq!(folder("city", Some("a. ")), "city=a.%20");
        assert_eq!(value_of("city", "city=St%2E"), Some(FolderValue::Text("St.".to_owned())));
        assert_eq!(folder("city", Some("a.b")), "city=a.b");
    }

    #[test]
    fn what_is_cut_is_not_known() {
        assert_eq!(value_of("a", &folder("a", Some(&"x".repeat(161)))), Some(FolderValue::Unknown));
        assert_eq!(value_of("a", &folder("a", None)), Some(FolderValue::Absent));
        assert_eq!(value_of("a", "b=1"), None);
        assert_eq!(value_of("a", "a=%FF"), None);
    }
}
