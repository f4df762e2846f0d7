//! One pass over one JSON value: checks everything that makes a line bad and hands out its pieces.
//!
//! Every part of a line is read by this walk or by `fit`, and both hold the same rules: strict grammar, valid
//! UTF-8, no lone surrogates, at most [`MAX_DEPTH`] levels, no member name twice in one object.

use super::MAX_DEPTH;
use jiter::{Jiter, JiterError, JiterErrorType, Peek};

/// Why a line gives no row.
#[derive(Debug)]
pub(super) enum Flaw {
    /// Not JSON, and at which byte of the line that shows.
    Syntax(JiterErrorType, usize),
    /// JSON, but not an object.
    NotARow(&'static str),
    /// Too many levels.
    TooDeep,
    /// This member name stands twice in one object.
    Duplicate(String),
    /// A value that its column cannot hold: the path to the column, innermost name first.
    Misfit(Vec<String>, String),
}

/// Boxed, because bad lines are rare and results are returned for every value.
pub(super) type Walked<T> = Result<T, Box<Flaw>>;

impl From<JiterError> for Box<Flaw> {
    fn from(error: JiterError) -> Self {
        Box::new(Flaw::Syntax(error.error_type, error.index))
    }
}

impl Flaw {
    /// The value does not fit, says `what`.
    pub(super) fn misfit(what: impl Into<String>) -> Box<Self> {
        Box::new(Self::Misfit(Vec::new(), what.into()))
    }

    /// The same flaw seen from one level up: it lies under the member `name`.
    pub(super) fn under(mut self: Box<Self>, name: &str) -> Box<Self> {
        if let Self::Misfit(path, _) = &mut *self {
            path.push(name.to_owned());
        }
        self
    }

    /// The reason in words, for the line it was found in.
    pub(super) fn reason(&self, line: &[u8]) -> String {
        match self {
            Self::Syntax(what, at) => match std::str::from_utf8(line) {
                Err(e) => format!("invalid UTF-8 at byte {}{}", e.valid_up_to(), utf16_hint(line)),
                Ok(_) => format!("malformed JSON at byte {at}: {what}"),
            },
            Self::NotARow(found) => format!("{found}, where a row must be an object"),
            Self::TooDeep => format!("more than {MAX_DEPTH} objects and lists inside each other"),
            Self::Duplicate(name) => format!("member {:?} stands twice in one object", clip(name)),
            Self::Misfit(path, what) => {
                let path: Vec<&str> = path.iter().rev().map(String::as_str).collect();
                format!("column {}: {what}", path.join(".").escape_debug())
            }
        }
    }
}

fn utf16_hint(line: &[u8]) -> &'static str {
    let marked = line.starts_with(b"\xFF\xFE") || line.starts_with(b"\xFE\xFF");
    if marked { " (the file looks like UTF-16; convert it to UTF-8)" } else { "" }
}

/// At most the first 60 characters of `text`, for a message.
pub(super) fn clip(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// The member names of the objects that are open, to find the same one twice.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// All names of the line, one after the other.
    text: Vec<u8>,
    /// Those of open objects.
    open: Vec<Name>,
}

/// Where a name stands in the text, and a mix of its bytes to tell most names apart fast.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name {
    start: usize,
    end: usize,
    mix: u64,
}

/// Where a name stands among the names of its line, in little: a line is shorter than 4 GiB.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    start: u32,
    end: u32,
}

impl Name {
    /// Where it stands.
    pub(super) fn place(self) -> Place {
        Place { start: self.start as u32, end: self.end as u32 }
    }
}

impl Names {
    /// Where the names of the object that opens now will begin.
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    /// Notes a name of the object opened last.
    pub(super) fn push(&mut self, name: &str) -> Name {
        let start = self.text.len();
        self.text.extend_from_slice(name.as_bytes());
        let name = Name { start, end: self.text.len(), mix: mix(name.as_bytes()) };
        self.open.push(name);
        name
    }

    /// Forgets the names since `mark`; an error if one was there twice.
    pub(super) fn close(&mut self, mark: usize) -> Walked<()> {
        let Self { text, open } = self;
        let text = |name: &Name| text.get(name.start..name.end).unwrap_or_default();
        let same = |a: &Name, b: &Name| a.mix == b.mix && text(a) == text(b);
        let own = open.get_mut(mark..).unwrap_or_default();
        let twice = if own.len() <= 32 {
            let mut later = own.iter();
            std::iter::from_fn(|| later.next().map(|name| (name, later.as_slice())))
                .find(|(name, rest)| rest.iter().any(|other| same(name, other)))
                .map(|(name, _)| name)
        } else {
            own.sort_unstable_by(|a, b| a.mix.cmp(&b.mix).then_with(|| text(a).cmp(text(b))));
            own.iter().zip(own.iter().skip(1)).find(|(a, b)| same(a, b)).map(|(a, _)| a)
        };
        if let Some(twice) = twice {
            return Err(Box::new(Flaw::Duplicate(String::from_utf8_lossy(text(twice)).into_owned())));
        }
        open.truncate(mark);
        Ok(())
    }

    /// A name noted since the last [`clear`](Self::clear).
    pub(super) fn at(&self, place: Place) -> &str {
        let bytes = self.text.get(place.start as usize..place.end as usize).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    /// Forgets everything, for the next line.
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.open.clear();
    }
}

/// The length, the first and the last eight bytes, mixed. Names made to collide cost comparisons, no more.
fn mix(name: &[u8]) -> u64 {
    let word = |bytes: Option<&[u8]>| bytes.and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
    let len = name.len();
    if len >= 8 {
        let (first, last) = (word(name.get(..8)), word(name.get(len - 8..)));
        return first ^ last.rotate_left(23) ^ ((len as u64) << 56);
    }
    name.iter().fold(len as u64, |sum, b| sum << 8 | u64::from(*b))
}

/// A piece of a value, in the order of the text. Raw bytes are as written, quotes and escapes included.
#[derive(Debug, Clone, Copy)]
pub(super) enum Piece<'a> {
    Null,
    Bool(bool),
    Number(&'a [u8]),
    Text(&'a [u8]),
    OpenList,
    CloseList,
    OpenObject,
    CloseObject,
    /// A member's name as written, and where its meaning is noted.
    Name(&'a [u8], Name),
    /// Before every element and member but the first.
    Comma,
}

impl Piece<'_> {
    /// Appends the piece to JSON text without white space.
    pub(super) fn write(self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(true) => out.extend_from_slice(b"true"),
            Self::Bool(false) => out.extend_from_slice(b"false"),
            Self::Number(raw) | Self::Text(raw) => out.extend_from_slice(raw),
            Self::OpenList => out.push(b'['),
            Self::CloseList => out.push(b']'),
            Self::OpenObject => out.push(b'{'),
            Self::CloseObject => out.push(b'}'),
            Self::Name(raw, _) => {
                out.extend_from_slice(raw);
                out.push(b':');
            }
            Self::Comma => out.push(b','),
        }
    }
}

/// Reads the value that begins with `peek` as level `depth` (the row is level 1) and hands its pieces to
/// `visit`.
pub(super) fn walk<V: FnMut(Piece<'_>)>(
    json: &mut Jiter<'_>,
    names: &mut Names,
    peek: Peek,
    depth: usize,
    visit: &mut V,
) -> Walked<()> {
    match peek {
        Peek::Null => {
            json.known_null()?;
            visit(Piece::Null);
        }
        Peek::True | Peek::False => visit(Piece::Bool(json.known_bool(peek)?)),
        Peek::String => {
            let start = json.current_index();
            json.known_str()?;
            visit(Piece::Text(json.slice_to_current(start)));
        }
        Peek::Array => {
            check_depth(depth)?;
            visit(Piece::OpenList);
            let mut next = json.known_array()?;
            while let Some(peek) = next {
                walk(json, names, peek, depth + 1, visit)?;
                next = json.array_step()?;
                if next.is_some() {
                    visit(Piece::Comma);
                }
            }
            visit(Piece::CloseList);
        }
        Peek::Object => {
            check_depth(depth)?;
            visit(Piece::OpenObject);
            let mark = names.open();
            let mut start = json.current_index();
            let mut named = json.known_object()?.map(|name| names.push(name));
            while let Some(name) = named {
                visit(Piece::Name(name_in(json.slice_to_current(start)), name));
                let peek = json.peek()?;
                walk(json, names, peek, depth + 1, visit)?;
                start = json.current_index();
                named = json.next_key()?.map(|name| names.push(name));
                if named.is_some() {
                    visit(Piece::Comma);
                }
            }
            names.close(mark)?;
            visit(Piece::CloseObject);
        }
        _ if peek.is_num() => visit(Piece::Number(json.known_number_bytes(peek)?)),
        _ => return Err(no_value(json)),
    }
    Ok(())
}

/// An error if a container may not open at level `depth`.
pub(super) fn check_depth(depth: usize) -> Walked<()> {
    if depth > MAX_DEPTH { Err(Box::new(Flaw::TooDeep)) } else { Ok(()) }
}

/// What stands here begins no JSON value.
pub(super) fn no_value(json: &Jiter<'_>) -> Box<Flaw> {
    let what = JiterErrorType::JsonError(jiter::JsonErrorType::ExpectedSomeValue);
    Box::new(Flaw::Syntax(what, json.current_index()))
}

/// The quoted name in the text between two values: around it stand only white space and punctuation.
fn name_in(between: &[u8]) -> &[u8] {
    let start = memchr::memchr(b'"', between).unwrap_or(0);
    let end = memchr::memrchr(b'"', between).map_or(between.len(), |at| at + 1);
    between.get(start..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minified(line: &str) -> Result<String, String> {
        let (mut json, mut names, mut out) = (Jiter::new(line.as_bytes()), Names::default(), Vec::new());
        let run = |json: &mut Jiter<'_>, names: &mut Names, out: &mut Vec<u8>| -> Walked<()> {
            let peek = json.peek()?;
            walk(json, names, peek, 1, &mut |piece| piece.write(out))?;
            Ok(json.finish()?)
        };
        run(&mut json, &mut names, &mut out).map_err(|flaw| flaw.reason(line.as_bytes()))?;
        assert!(names.open.is_empty());
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn only_the_white_space_between_tokens_is_dropped() {
        let text =
            r#" { "b" : [ 1.50 , -0, 1E+2 , [ ] , { } ] , "\u0061\"" : " x\ty " , "" : null , "é" : true } "#;
        let text = text.replace("\\ty", "\\t y");
        assert_eq!(
            minified(&text).unwrap(),
            r#"{"b":[1.50,-0,1E+2,[],{}],"\u0061\"":" x\t y ","":null,"é":true}"#
        );
    }

    #[test]
    fn a_name_twice_in_one_object_is_a_flaw_however_it_is_spelled() {
        assert_eq!(
            minified(r#"{"x":{"a":1,"\u0061":2}}"#).unwrap_err(),
            "member \"a\" stands twice in one object"
        );
        let many: Vec<String> = (0..40).map(|i| format!("\"m{i}\":0")).collect();
        assert!(minified(&format!("{{{}}}", many.join(","))).is_ok());
        assert!(minified(&format!("{{{},\"m3\":1}}", many.join(","))).unwrap_err().contains("\"m3\""));
        assert!(minified(r#"{"a":{"a":{"a":1}},"b":{"a":1}}"#).is_ok());
    }

    #[test]
    fn the_depth_limit_counts_objects_and_lists() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(minified(&nested(MAX_DEPTH)).is_ok());
        assert!(minified(&nested(MAX_DEPTH + 1)).unwrap_err().contains("128"));
        assert!(minified(&"[".repeat(1_000_000)).unwrap_err().contains("128"));
        assert!(minified(&"{\"a\":".repeat(1_000_000)).unwrap_err().contains("128"));
    }

    #[test]
    fn lone_surrogates_control_characters_and_loose_grammar_are_flaws() {
        for bad in [
            r#""\ud800""#,
            r#""\udc00x""#,
            r#""\ud800\u0041""#,
            "\"\u{1}\"",
            "NaN",
            "-Infinity",
            "01",
            "1.",
            "+1",
            "[1,]",
            "1 2",
            "'a'",
            "nul",
        ] {
            assert!(minified(bad).unwrap_err().contains("malformed"), "{bad}");
        }
        assert_eq!(minified(r#""\ud83d\ude00""#).unwrap(), r#""\ud83d\ude00""#);
    }
}
