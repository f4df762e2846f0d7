//! Clients for the clouds' buckets.
//!
//! Settings come from each cloud's usual environment variables and, before those, from `--store-option name=value`,
//! whose names are the client library's (`region`, `endpoint`, `access_key_id`, `allow_http`, `timeout`,
//! `connect_timeout`, `proxy_url`, …) plus two of ours: `retry_timeout` (how long failing requests are repeated,
//! 10 s) and `max_retries` (5). One request may take `timeout` (30 s), a connection `connect_timeout` (5 s). So an
//! endpoint that is dead or silent ends in an error after about 30 s.

use super::{explain::Secrets, location::Cloud};
use crate::error::{Error, Result};
use object_store::{
    ClientConfigKey, ClientOptions, ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    client::{HttpClient, HttpConnector},
    gcp::{GoogleCloudStorageBuilder, GoogleConfigKey},
};
use std::{sync::Arc, time::Duration};

const RETRY_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_RETRIES: usize = 5;

/// The ordinary handle, the one that never repeats a request, and the secrets that neither may show.
type Handles = (Arc<dyn ObjectStore>, Arc<dyn ObjectStore>, Secrets);

/// What carries the requests instead of a network: for tests.
pub(super) type Connector = Arc<dyn HttpConnector>;

/// Connects to `bucket` (`s3://name`). No request is sent yet.
pub(super) fn connect(cloud: Cloud, bucket: &str, options: &[(String, String)]) -> Result<Handles> {
    let environment: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with(cloud.variables()))
        .collect();
    connect_with(cloud, bucket, options, &environment, None)
}

/// As [`connect`], with these variables for an environment.
pub(super) fn connect_with(
    cloud: Cloud,
    bucket: &str,
    options: &[(String, String)],
    environment: &[(String, String)],
    connector: Option<Connector>,
) -> Result<Handles> {
    let (retry, options) = retry_of(options)?;
    let settings = || environment.iter().chain(&options).map(|(name, value)| (name.as_str(), value.as_str()));
    let secrets = Secrets::among(settings(), cloud.advice());
    let failed = |e: object_store::Error| {
        Error::Usage(format!("{bucket}: the store cannot be set up: {}", secrets.explain(&e)))
    };
    let once = RetryConfig { max_retries: 0, ..retry.clone() };
    let name = bucket.split_once("://").map_or(bucket, |(_, name)| name);
    let (ordinary, once): (Arc<dyn ObjectStore>, Arc<dyn ObjectStore>) = match cloud {
        Cloud::S3 => {
            let builder =
                configure(AmazonS3Builder::new(), environment, &options, |builder, name, value| {
                    let key: AmazonS3ConfigKey = name.parse()?;
                    Ok(builder.with_config(key, value))
                })?;
            let plain = [AmazonS3ConfigKey::Endpoint, AmazonS3ConfigKey::S3Endpoint]
                .iter()
                .any(|key| builder.get_config_value(key).is_some_and(|endpoint| is_plain_http(&endpoint)));
            let builder = if plain { builder.with_allow_http(true) } else { builder };
            let mut builder = builder.with_bucket_name(name);
            if let Some(connector) = connector {
                builder = builder.with_http_connector(Injected(connector));
            }
            let ordinary = builder.clone().with_retry(retry).build().map_err(failed)?;
            // One cache of credentials for both.
            let credentials = Arc::clone(ordinary.credentials());
            let once = builder.with_credentials(credentials).with_retry(once).build().map_err(failed)?;
            (Arc::new(ordinary), Arc::new(once))
        }
        Cloud::Gcs => {
            let builder = configure(
                GoogleCloudStorageBuilder::new(),
                environment,
                &options,
                |builder, name, value| {
                    let key: GoogleConfigKey = name.parse()?;
                    Ok(builder.with_config(key, value))
                },
            )?;
            let plain = builder.get_config_value(&GoogleConfigKey::BaseUrl);
            let builder = if plain.is_some_and(|url| is_plain_http(&url)) {
                builder.with_config(GoogleConfigKey::Client(ClientConfigKey::AllowHttp), "true")
            } else {
                builder
            };
            let mut builder = builder.with_bucket_name(name);
            if let Some(connector) = connector {
                builder = builder.with_http_connector(Injected(connector));
            }
            let ordinary = builder.clone().with_retry(retry).build().map_err(failed)?;
            let once = builder.with_retry(once).build().map_err(failed)?;
            (Arc::new(ordinary), Arc::new(once))
        }
        Cloud::Azure => {
            let builder =
                configure(MicrosoftAzureBuilder::new(), environment, &options, |builder, name, value| {
                    let key: AzureConfigKey = name.parse()?;
                    Ok(builder.with_config(key, value))
                })?;
            let plain = builder.get_config_value(&AzureConfigKey::Endpoint);
            let builder = if plain.is_some_and(|url| is_plain_http(&url)) {
                builder.with_allow_http(true)
            } else {
                builder
            };
            let mut builder = builder.with_url(bucket);
            if let Some(connector) = connector {
                builder = builder.with_http_connector(Injected(connector));
            }
            let ordinary = builder.clone().with_retry(retry).build().map_err(failed)?;
            let credentials = Arc::clone(ordinary.credentials());
            let once = builder.with_credentials(credentials).with_retry(once).build().map_err(failed)?;
            (Arc::new(ordinary), Arc::new(once))
        }
    };
    Ok((ordinary, once, secrets))
}

/// A connector that is shared by the handles of one store.
#[derive(Debug)]
struct Injected(Connector);

impl HttpConnector for Injected {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        self.0.connect(options)
    }
}

impl Cloud {
    fn variables(self) -> &'static str {
        match self {
            Self::S3 => "AWS_",
            Self::Gcs => "GOOGLE_",
            Self::Azure => "AZURE_",
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Self::S3 => {
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL"
            }
            Self::Gcs => "GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT",
            Self::Azure => {
                "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN"
            }
        }
    }
}

/// Applies the environment, whose foreign names are passed over, then the options, whose unknown names are errors.
fn configure<B: Clone>(
    mut builder: B,
    environment: &[(String, String)],
    options: &[(String, String)],
    set: impl Fn(B, &str, &str) -> Result<B, object_store::Error>,
) -> Result<B> {
    for (name, value) in environment {
        let name = match name.as_str() {
            // The names that Azure's own tools read.
            "AZURE_STORAGE_ACCOUNT" => "azure_storage_account_name".to_owned(),
            "AZURE_STORAGE_KEY" => "azure_storage_account_key".to_owned(),
            name => name.to_ascii_lowercase(),
        };
        if let Ok(set) = set(builder.clone(), &name, value) {
            builder = set;
        }
    }
    for (name, value) in options {
        let lower = name.to_ascii_lowercase();
        // The library wants a unit; a bare number of seconds is what people write.
        let seconds =
            lower.ends_with("timeout") && !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
        let value = if seconds { format!("{value}s") } else { value.clone() };
        builder = set(builder.clone(), &lower, &value).map_err(|_| {
            Error::Usage(format!(
                "unknown store option {name:?}; known are region, endpoint, access_key_id, secret_access_key, \
                 session_token, allow_http, virtual_hosted_style_request, account_name, account_key, sas_token, \
                 service_account, base_url, skip_signature, timeout, connect_timeout, retry_timeout, max_retries, \
                 proxy_url and the other names of the client library for this cloud"
            ))
        })?;
    }
    Ok(builder)
}

/// Our own two settings, and the rest.
fn retry_of(options: &[(String, String)]) -> Result<(RetryConfig, Vec<(String, String)>)> {
    let mut retry =
        RetryConfig { max_retries: MAX_RETRIES, retry_timeout: RETRY_TIMEOUT, ..RetryConfig::default() };
    let mut rest = Vec::new();
    for (name, value) in options {
        let wrong = |wanted: &str| Error::Usage(format!("store option {name}={value}: expected {wanted}"));
        match name.to_ascii_lowercase().as_str() {
            "retry_timeout" => {
                retry.retry_timeout = duration(value).ok_or_else(|| wrong("a time such as 10s or 500ms"))?;
            }
            "max_retries" => retry.max_retries = value.parse().map_err(|_| wrong("a number"))?,
            _ => rest.push((name.clone(), value.clone())),
        }
    }
    Ok((retry, rest))
}

/// `10`, `10s`, `500ms` or `2m`.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.trim().parse().ok()?;
    match text.strip_prefix(digits)? {
        "" | "s" => Some(Duration::from_secs(number)),
        "ms" => Some(Duration::from_millis(number)),
        "m" | "min" => number.checked_mul(60).map(Duration::from_secs),
        _ => None,
    }
}

/// Whoever sets an endpoint with `http://` has said that plain HTTP is meant.
fn is_plain_http(endpoint: &str) -> bool {
    endpoint.trim_start().to_ascii_lowercase().starts_with("http://")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// What reaches a client that knows only these names, in order.
    fn taken(environment: &[(&str, &str)], options: &[(&str, &str)]) -> Result<Vec<(String, String)>> {
        const KNOWN: [&str; 6] = [
            "region",
            "timeout",
            "connect_timeout",
            "max_idle",
            "azure_storage_account_name",
            "azure_storage_account_key",
        ];
        configure(Vec::new(), &owned(environment), &owned(options), |mut taken, name, value| {
            if !KNOWN.contains(&name) {
                return Err(object_store::Error::NotSupported { source: "unknown".into() });
            }
            taken.push((name.to_owned(), value.to_owned()));
            Ok(taken)
        })
    }

    #[test]
    fn foreign_variables_are_passed_over_and_unknown_options_named() {
        let environment = [
            ("REGION", "one"),
            ("PATH", "/bin"),
            ("AZURE_STORAGE_ACCOUNT", "me"),
            ("AZURE_STORAGE_KEY", "mine"),
        ];
        assert_eq!(
            taken(&environment, &[("Region", "two")]).unwrap(),
            owned(&[
                ("region", "one"),
                ("azure_storage_account_name", "me"),
                ("azure_storage_account_key", "mine"),
                ("region", "two"),
            ])
        );
        let error = taken(&[], &[("Regoin", "x")]).unwrap_err();
        assert!(matches!(&error, Error::Usage(why) if why.contains("unknown store option \"Regoin\"")));
    }

    #[test]
    fn a_time_out_without_a_unit_is_in_seconds() {
        for (name, given, passed_on) in [
            ("timeout", "5", "5s"),
            ("Connect_Timeout", "50", "50s"),
            ("timeout", "5s", "5s"),
            ("timeout", "", ""),
            ("max_idle", "5", "5"),
        ] {
            let name_passed_on = name.to_ascii_lowercase();
            let expected = owned(&[(&name_passed_on, passed_on)]);
            assert_eq!(taken(&[], &[(name, given)]).unwrap(), expected);
        }
    }

    #[test]
    fn retries_are_set_by_two_options_of_our_own() {
        let (usual, rest) = retry_of(&owned(&[("region", "x")])).unwrap();
        assert_eq!((usual.max_retries, usual.retry_timeout), (5, Duration::from_secs(10)));
        assert_eq!(rest, owned(&[("region", "x")]));
        let (set, rest) = retry_of(&owned(&[("Max_Retries", "2"), ("retry_timeout", "500ms")])).unwrap();
        assert_eq!((set.max_retries, set.retry_timeout), (2, Duration::from_millis(500)));
        assert_eq!(rest, []);
        let error = retry_of(&owned(&[("max_retries", "two")])).unwrap_err().to_string();
        assert!(error.contains("max_retries=two: expected a number"), "{error}");
    }

    #[test]
    fn times_are_written_as_people_do() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (text, time) in [
            ("10", seconds(10)),
            ("10s", seconds(10)),
            ("10 s", seconds(10)),
            ("1500ms", Some(Duration::from_millis(1500))),
            ("2m", seconds(120)),
            ("2min", seconds(120)),
            ("", None),
            ("s", None),
            ("-1s", None),
            ("1.5s", None),
            ("10h", None),
            ("18446744073709551615m", None),
        ] {
            assert_eq!(duration(text), time, "{text}");
        }
    }

    #[test]
    fn only_an_endpoint_that_says_so_is_plain_http() {
        assert!(is_plain_http("http://h:9000") && is_plain_http(" HTTP://h"));
        assert!(!is_plain_http("https://h") && !is_plain_http("h/http://") && !is_plain_http(""));
    }

    #[test]
    fn the_advice_names_variables_that_are_read() {
        for (cloud, prefix, advised) in [
            (Cloud::S3, "AWS_", "AWS_SECRET_ACCESS_KEY"),
            (Cloud::Gcs, "GOOGLE_", "GOOGLE_APPLICATION_CREDENTIALS"),
            (Cloud::Azure, "AZURE_", "AZURE_STORAGE_ACCOUNT_KEY"),
        ] {
            assert_eq!(cloud.variables(), prefix);
            assert!(cloud.advice().contains(advised) && cloud.advice().starts_with(prefix));
        }
    }
}
