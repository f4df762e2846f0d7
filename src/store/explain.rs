//! What a bucket's error says to people: short, with advice, and without any secret.
//!
//! The servers' own answers may repeat access keys, signed headers and session tokens, and addresses may carry
//! signatures in their queries. So only a code and a message are taken from an answer, queries and user names are
//! cut from addresses, and every secret value that was configured is struck out.

use object_store::{
    Error as StoreError,
    client::{HttpError, HttpErrorKind},
};
use std::{
    error::Error as StdError,
    fmt,
    sync::{Mutex, PoisonError},
};

/// Messages longer than this (an HTML page, say) are cut.
const MAX_CHARS: usize = 800;

/// The secrets of all stores that this process has opened: libraries may log what they were given.
static KNOWN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// `text` without any secret of any store: for everything that is logged.
pub(crate) fn redacted(text: &str) -> String {
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.iter().fold(text.to_owned(), |text, secret| match text.contains(secret.as_str()) {
        true => text.replace(secret, "***"),
        false => text,
    })
}

/// Parts of a secret that may show without the whole: the values of a signature's query, the texts of a key file.
fn parts(secret: &str) -> Vec<String> {
    let texts = match serde_json::from_str(secret) {
        Ok(serde_json::Value::Object(members)) => {
            let long =
                |value: &serde_json::Value| value.as_str().filter(|text| text.len() >= 20).map(str::to_owned);
            // An address in it is no secret.
            members.values().filter_map(long).filter(|text| !text.contains("://")).collect()
        }
        _ => Vec::new(),
    };
    let values = secret.split('&').filter_map(|pair| pair.split_once('=')).map(|(_, value)| value);
    let long = values.filter(|value| secret.contains('&') && value.len() >= 16).map(str::to_owned);
    texts.into_iter().chain(long).collect()
}

/// The password, or the user if there is none, in an address such as that of an endpoint or a proxy.
fn user_of(address: &str) -> Option<String> {
    let (_, rest) = address.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (user, _) = authority.rsplit_once('@')?;
    let secret = user.split_once(':').map_or(user, |(_, password)| password);
    (!secret.is_empty()).then(|| secret.to_owned())
}

/// Secret values that must not show anywhere.
#[derive(Default, Clone)]
pub(super) struct Secrets {
    values: Vec<String>,
    /// What to set where credentials are missing or wrong.
    advice: &'static str,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.values.len())
    }
}

/// An explanation, as the source of an error.
#[derive(Debug)]
pub(super) struct Reason(String);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Reason {}

impl Secrets {
    /// The secrets among `settings` (names and values). `advice` names the settings that hold credentials.
    pub(super) fn among<'a>(
        settings: impl Iterator<Item = (&'a str, &'a str)>,
        advice: &'static str,
    ) -> Self {
        const WORDS: [&str; 7] = ["secret", "key", "token", "password", "sas", "credential", "signature"];
        let secret = |name: &str, value: &str| {
            let name = name.to_ascii_lowercase();
            // Shorter ones are no secrets, and a path is useful in a message.
            value.len() >= 6 && !value.starts_with('/') && WORDS.iter().any(|word| name.contains(word))
        };
        let mut values: Vec<String> = Vec::new();
        for (name, value) in settings {
            if secret(name, value) {
                values.push(value.to_owned());
                values.extend(parts(value));
            }
            values.extend(user_of(value));
        }
        // Longest first, so that a secret that contains another is struck out whole.
        values.sort_unstable_by_key(|value| std::cmp::Reverse(value.len()));
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(values.iter().cloned());
        known.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        known.dedup();
        Self { values, advice }
    }

    /// Whether "not found" means the bucket rather than the object.
    pub(super) fn tells_of_missing_bucket(&self, error: &StoreError) -> bool {
        missing_bucket(&whole_text(error))
    }

    /// `error` in words that may be shown.
    pub(super) fn explain(&self, error: &StoreError) -> Reason {
        let text = whole_text(error);
        let mut shown = strip_addresses(&strip_body(&text));
        for secret in &self.values {
            shown = shown.replace(secret, "***");
        }
        if let Some((end, _)) = shown.char_indices().nth(MAX_CHARS) {
            shown.truncate(end);
            shown.push('…');
        }
        if let Some(advice) = self.advice_for(error, &text) {
            shown = format!("{shown}. {advice}");
        }
        Reason(shown)
    }

    fn advice_for(&self, error: &StoreError, text: &str) -> Option<String> {
        if missing_bucket(text) {
            return Some("The bucket does not exist: check its name, or create it first".into());
        }
        // Some calls keep no class for a refusal, and missing credentials show as a silent metadata service.
        const SIGNS: [&str; 4] =
            ["403 Forbidden", "401 Unauthorized", "169.254.", "metadata.google.internal"];
        if matches!(error, StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. })
            || SIGNS.iter().any(|sign| text.contains(sign))
        {
            return Some(format!("Check the credentials ({}) and what they may do here", self.advice));
        }
        let waited = "check the endpoint and the network; to wait longer, --store-option timeout=60s (one request) or \
                      retry_timeout=60s (all attempts)";
        match transport(error)? {
            HttpErrorKind::Timeout => Some(format!("No answer in time: {waited}")),
            HttpErrorKind::Connect => Some(format!("No connection: {waited}")),
            _ => None,
        }
    }
}

/// Whether a conditional put failed because the store, or the client by its settings, does not do such a thing.
pub(super) fn tells_of_unknown_conditions(error: &StoreError) -> bool {
    matches!(error, StoreError::NotImplemented { .. } | StoreError::NotSupported { .. })
        || whole_text(error).contains("501 Not Implemented")
}

fn transport(error: &StoreError) -> Option<HttpErrorKind> {
    chain(error).into_iter().find_map(|cause| cause.downcast_ref::<HttpError>()).map(HttpError::kind)
}

/// The error and all its causes.
fn chain(error: &StoreError) -> Vec<&(dyn StdError + 'static)> {
    let mut causes: Vec<&(dyn StdError + 'static)> = Vec::new();
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(cause) = next {
        causes.push(cause);
        next = cause.source();
    }
    causes
}

/// The error with those of its causes that it does not repeat itself.
fn whole_text(error: &StoreError) -> String {
    let mut text = String::new();
    for cause in chain(error) {
        let words = cause.to_string();
        if text.is_empty() {
            text = words;
        } else if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
    }
    text
}

fn missing_bucket(text: &str) -> bool {
    ["NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist"]
        .iter()
        .any(|words| text.contains(words))
}

/// Puts code and message of an XML answer in place of the answer.
fn strip_body(text: &str) -> String {
    let Some((before, body)) = text.find('<').map(|at| text.split_at(at)) else { return text.to_owned() };
    let element = |name: &str| {
        let (_, rest) = body.split_once(&format!("<{name}>"))?;
        rest.split_once('<').map(|(value, _)| value.trim().to_owned())
    };
    let parts: Vec<String> = [element("Code"), element("Message")].into_iter().flatten().collect();
    format!("{before}{}", parts.join(": ")).trim_end_matches([' ', ':']).to_owned()
}

/// Cuts queries and user names from the addresses in `text`.
fn strip_addresses(text: &str) -> String {
    let mut stripped = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        stripped.push_str(before);
        let end = after.find(|c: char| c.is_whitespace() || "\"'()<>".contains(c)).unwrap_or(after.len());
        let (address, behind) = after.split_at(end);
        stripped.push_str(&super::location::without_user_and_query(address));
        rest = behind;
    }
    stripped + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> StoreError {
        StoreError::Generic { store: "S3", source: text.to_owned().into() }
    }

    #[test]
    fn configured_secrets_are_struck_out() {
        let settings =
            [("aws_secret_access_key", "planted-secret"), ("region", "eu-central-1"), ("token", "abc")];
        let secrets = Secrets::among(settings.into_iter(), "");
        let shown = secrets.explain(&generic("sent planted-secret to eu-central-1 by abc")).to_string();
        assert!(!shown.contains("planted-secret"), "{shown}");
        assert!(shown.contains("*** to eu-central-1 by abc"), "{shown}");
        assert!(!format!("{secrets:?}").contains("planted"));
    }

    #[test]
    fn what_is_logged_holds_no_part_of_a_secret() {
        let settings = [
            ("endpoint", "http://me:planted-password@h:1/x"),
            ("sas_token", "sv=2021&sp=rwdl&sig=planted-signature-0123"),
            ("service_account_key", "{\"type\":\"x\",\"private_key\":\"planted-private-key-01\"}"),
        ];
        let _ = Secrets::among(settings.into_iter(), "");
        let line = "to http://me:planted-password@h:1/x?sp=rwdl&sig=planted-signature-0123 by planted-private-key-01";
        let shown = redacted(line);
        assert_eq!(shown, "to http://me:***@h:1/x?sp=rwdl&sig=*** by ***");
    }

    #[test]
    fn addresses_lose_their_users_and_queries() {
        let shown =
            strip_addresses("GET https://me:pw@host/a%20b?sig=planted&x=1 in 3s (http://h/p?token=planted)");
        assert_eq!(shown, "GET https://host/a%20b in 3s (http://h/p)");
    }

    #[test]
    fn of_an_xml_answer_only_code_and_message_are_shown() {
        let body = "<?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>It differs.</Message>\
                    <AWSAccessKeyId>PLANTED</AWSAccessKeyId><CanonicalRequest>x-amz-security-token:PLANTED\
                    </CanonicalRequest></Error>";
        let shown = strip_body(&format!("403 Forbidden: {body}"));
        assert_eq!(shown, "403 Forbidden: SignatureDoesNotMatch: It differs.");
        assert_eq!(strip_body("502: <html><body>PLANTED</body></html>"), "502");
    }

    #[test]
    fn a_missing_bucket_is_told_from_a_missing_object() {
        let secrets = Secrets::default();
        assert!(secrets.tells_of_missing_bucket(&generic("404: <Code>NoSuchBucket</Code>")));
        assert!(!secrets.tells_of_missing_bucket(&generic("404: <Code>NoSuchKey</Code>")));
    }

    #[test]
    fn endless_messages_are_cut() {
        let shown = Secrets::default().explain(&generic(&"ä".repeat(10_000))).to_string();
        assert!(shown.chars().count() <= MAX_CHARS + 1);
    }

    #[test]
    fn what_is_too_short_or_no_secret_by_its_name_shows() {
        let settings = [
            ("secret_access_key", "12345"),
            ("SESSION_TOKEN", "123456"),
            ("service_account_key", "/home/me/key.json"),
            ("region", "eu-central-1"),
            ("proxy_url", "http://me:pass@h:1"),
            ("endpoint", "http://h:2"),
        ];
        let secrets = Secrets::among(settings.into_iter(), "");
        assert_eq!(format!("{secrets:?}"), "Secrets(2)");
        let text = "12345 in eu-central-1 of /home/me/key.json; 123456 of pass";
        assert_eq!(
            secrets.explain(&generic(text)).to_string(),
            "Generic S3 error: 12345 in eu-central-1 of /home/me/key.json; *** of ***"
        );
    }

    #[test]
    fn the_parts_of_a_secret_that_are_long_are_secrets_too() {
        let (long, short) = ("20 characters long..", "19 characters long.");
        let address = "https://accounts.test/token";
        let file = format!("{{\"a\": \"{long}\", \"b\": \"{short}\", \"c\": \"{address}\", \"d\": 5}}");
        assert_eq!(parts(&file), [long]);
        assert_eq!(parts("sv=15 characters..&sig=16 characters..."), ["16 characters..."]);
        assert_eq!(parts("sig=16 characters..."), [""; 0]);
        assert_eq!(parts("[1]"), [""; 0]);
    }

    #[test]
    fn the_user_of_an_address_is_found_and_no_other_part() {
        for (address, user) in [
            ("http://me:pass@h/x", Some("pass")),
            ("http://me@h", Some("me")),
            ("http://me:@h", None),
            ("http://@h", None),
            ("http://h/x@y", None),
            ("http://h?x@y", None),
            ("http://h#x@y", None),
            ("me:pass@h", None),
        ] {
            assert_eq!(user_of(address).as_deref(), user, "{address}");
        }
    }

    #[test]
    fn every_failure_has_its_advice() {
        let secrets = Secrets { values: Vec::new(), advice: "SOME_KEY" };
        let told = |error: StoreError| secrets.explain(&error).to_string();
        let source = || "no".into();
        let over_http = |kind| StoreError::Generic {
            store: "S3",
            source: Box::new(HttpError::new(kind, std::io::Error::other("wire"))),
        };
        for (error, advice) in [
            (StoreError::PermissionDenied { path: "x".into(), source: source() }, Some("(SOME_KEY)")),
            (StoreError::Unauthenticated { path: "x".into(), source: source() }, Some("(SOME_KEY)")),
            (generic("403 Forbidden"), Some("Check the credentials")),
            (generic("401 Unauthorized"), Some("Check the credentials")),
            (generic("no answer of 169.254.169.254"), Some("Check the credentials")),
            (generic("no answer of metadata.google.internal"), Some("Check the credentials")),
            (generic("404 <Code>ContainerNotFound</Code>"), Some("The bucket does not exist")),
            (generic("The specified bucket does not exist"), Some("The bucket does not exist")),
            (over_http(HttpErrorKind::Timeout), Some("No answer in time")),
            (over_http(HttpErrorKind::Connect), Some("No connection")),
            (over_http(HttpErrorKind::Decode), None),
            (generic("500"), None),
        ] {
            let told = told(error);
            match advice {
                Some(advice) => {
                    assert!(told.contains(&format!(". {advice}")) || told.contains(advice), "{told}")
                }
                None => assert!(!told.contains(". "), "{told}"),
            }
        }
    }

    #[test]
    fn a_store_without_conditions_is_known_by_its_answer() {
        let (operation, implementer) = ("put".to_owned(), "x".to_owned());
        for (error, unknown) in [
            (StoreError::NotImplemented { operation, implementer }, true),
            (StoreError::NotSupported { source: "no".into() }, true),
            (generic("501 Not Implemented"), true),
            (generic("500 Internal Server Error"), false),
        ] {
            assert_eq!(tells_of_unknown_conditions(&error), unknown, "{error}");
        }
    }

    #[test]
    fn a_cause_is_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("{0}")]
        struct Outer(&'static str, #[source] std::io::Error);
        let told = |outer| {
            let source = Box::new(Outer(outer, std::io::Error::other("the cause")));
            whole_text(&StoreError::Generic { store: "S3", source })
        };
        assert_eq!(told("it failed"), "Generic S3 error: it failed: the cause");
        assert_eq!(told("it failed by the cause"), "Generic S3 error: it failed by the cause");
    }
}
