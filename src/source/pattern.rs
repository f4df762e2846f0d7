//! Patterns over names: `data/2024-*/**/*.json`, the same on a disk and in a bucket.
//!
//! A pattern is matched part by part: `*`, `?` and `[…]` stay within one part, `**` stands for any number of parts.
//! Names that begin with `.` or `_` are met only by parts that begin so too. A pattern that names a folder means all
//! that is visible in it, as if the shell had expanded it.

use crate::error::{Error, Result};
use glob::{MatchOptions, Pattern as Glob};

/// A pattern, after the folder that it starts in.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
enum Part {
    /// `**`
    Deep,
    Plain(String),
    Glob(Glob),
}

/// How far a name agrees with a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Agreement {
    /// Neither it nor anything below it.
    None,
    /// Something below it may.
    Partial,
    /// It does, and so does whatever is visible below it.
    Full,
}

/// Whether `text` could be a pattern at all.
pub(super) fn has_wildcards(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// Whether a file or folder of this name shows without being asked for.
pub(super) fn is_visible(name: &str) -> bool {
    !name.starts_with(['.', '_'])
}

/// Splits `text` before the first part with a wildcard: the folder to start in, and the pattern.
pub(super) fn split(text: &str) -> (&str, &str) {
    let first = text.find(['*', '?', '[']).unwrap_or(text.len());
    match text.get(..first).and_then(|before| before.rfind('/')) {
        Some(slash) => {
            (text.get(..slash.max(1)).unwrap_or_default(), text.get(slash + 1..).unwrap_or_default())
        }
        None => ("", text),
    }
}

impl Pattern {
    /// Reads the pattern that [`split`] found.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut parts: Vec<Part> = Vec::new();
        for part in text.split('/').filter(|part| !part.is_empty() && *part != ".") {
            match part {
                "**" if matches!(parts.last(), Some(Part::Deep)) => {}
                "**" => parts.push(Part::Deep),
                part if !has_wildcards(part) => parts.push(Part::Plain(part.to_owned())),
                part => match Glob::new(part) {
                    Ok(glob) => parts.push(Part::Glob(glob)),
                    Err(error) => {
                        return Err(Error::Usage(format!(
                            "{part:?} is no pattern: {error}; see the help on sources"
                        )));
                    }
                },
            }
        }
        Ok(Self { parts })
    }

    /// How far `name`, relative to the folder that the pattern starts in, agrees.
    pub(super) fn agrees(&self, name: &str) -> Agreement {
        let names: Vec<&str> = name.split('/').collect();
        agree(&self.parts, &names)
    }
}

fn agree(parts: &[Part], names: &[&str]) -> Agreement {
    match (parts, names) {
        ([], rest) if rest.iter().all(|name| is_visible(name)) => Agreement::Full,
        ([], _) => Agreement::None,
        (_, []) => Agreement::Partial,
        ([Part::Deep, after @ ..], [name, below @ ..]) => {
            let here = agree(after, names);
            let deeper = if is_visible(name) { agree(parts, below) } else { Agreement::None };
            here.max(deeper)
        }
        ([part, after @ ..], [name, below @ ..]) if part.meets(name) => agree(after, below),
        _ => Agreement::None,
    }
}

impl Part {
    fn meets(&self, name: &str) -> bool {
        match self {
            Self::Deep => true,
            Self::Plain(plain) => plain == name,
            Self::Glob(glob) => {
                let options = MatchOptions { require_literal_leading_dot: true, ..MatchOptions::new() };
                let shown = !name.starts_with('_') || glob.as_str().starts_with('_');
                shown && glob.matches_with(name, options)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Agreement::{Full, None, Partial};

    #[test]
    fn a_pattern_meets_what_a_shell_would() {
        let cases = [
            ("*.json", "a.json", Full),
            ("*.json", "a.txt", None),
            ("*.json", "d/a.json", None),
            ("*.json", ".a.json", None),
            (".*.json", ".a.json", Full),
            ("*.json", "_a.json", None),
            ("_*.json", "_a.json", Full),
            ("?.json", "ä.json", Full),
            ("[ab].json", "b.json", Full),
            ("d/*.json", "d", Partial),
            ("d/*.json", "e", None),
            ("**/*.json", "a.json", Full),
            ("**/*.json", "x/y/a.json", Full),
            ("**/*.json", "x/y", Partial),
            ("**/*.json", "x/.y/a.json", None),
            ("**/*.json", "_x/a.json", None),
            ("_x/**", "_x/a.json", Full),
            ("**", "x/y/a.json", Full),
            ("a/**", "a", Partial),
            ("a/**", "a/b", Full),
            ("a/**/**/b", "a/b", Full),
            ("2024-*", "2024-01", Full),
            ("2024-*", "2024-01/x/a.json", Full),
            ("2024-*", "2024-01/_tmp/a.json", None),
            ("*/[!x]*.json", "d/y.json", Full),
        ];
        for (pattern, name, agreement) in cases {
            assert_eq!(Pattern::parse(pattern).unwrap().agrees(name), agreement, "{pattern} {name}");
        }
    }

    #[test]
    fn the_folder_to_start_in_ends_before_the_first_wildcard() {
        assert_eq!(split("a/b/*.json"), ("a/b", "*.json"));
        assert_eq!(split("a/b*/c"), ("a", "b*/c"));
        assert_eq!(split("*.json"), ("", "*.json"));
        assert_eq!(split("/*.json"), ("/", "*.json"));
        assert_eq!(split("ü/ß?"), ("ü", "ß?"));
    }

    proptest::proptest! {
        /// The oracle: the whole name, or a folder on the way to it, meets the whole pattern.
        #[test]
        fn whole_names_are_met_as_the_glob_crate_meets_them(
            parts in proptest::collection::vec(proptest::sample::select(vec!["a", "b", "*", "?", "a*", "*b", "**", "[ab]"]), 1..5),
            names in proptest::collection::vec("[ab]{1,3}", 1..5),
        ) {
            let options = MatchOptions { require_literal_separator: true, ..MatchOptions::new() };
            let oracle = Glob::new(&parts.join("/")).unwrap();
            let pattern = Pattern::parse(&parts.join("/")).unwrap();
            let met = (1..=names.len()).any(|n| oracle.matches_with(&names[..n].join("/"), options));
            proptest::prop_assert_eq!(pattern.agrees(&names.join("/")) == Full, met);
            for n in 1..names.len() {
                // Nothing that is met lies in a folder that is passed over.
                proptest::prop_assert!(!met || pattern.agrees(&names[..n].join("/")) != None);
            }
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(matches!(Pattern::parse("a/[x"), Err(Error::Usage(_))));
        assert!(matches!(Pattern::parse("a**b"), Err(Error::Usage(_))));
    }
}
