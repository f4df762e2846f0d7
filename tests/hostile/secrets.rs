//! Secrets are planted wherever a user can put them; then commands succeed and fail in many ways, as talkative as they
//! can be, and everything they print and write is searched.

use crate::loopback::{Loopback, Mood};
use crate::scene::{Scene, lines};
use crate::seal::resealed;
use std::fs;

/// Long enough to be a secret, and found in no honest output. Each is a valid value of its kind.
const PLANTED: [&str; 6] = [
    "PlantedSecretKey0123456789abcdef01234567",
    "PlantedSessionToken0123456789",
    "UGxhbnRlZEF6dXJlS2V5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMg==",
    "PlantedSasSignature0123456789",
    "PlantedPrivateKey0123456789",
    "PlantedBearer0123456789",
];

/// Parts by which a secret is recognised, also where it was encoded for an address.
const TRACES: [&str; 4] = ["Planted", "UGxhbnRlZ", "PLANTED-SECRET", "PLANTED-ACCESS"];

fn searched(what: &str, text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    for trace in TRACES {
        if let Some(at) = text.find(trace) {
            let start = text.floor_char_boundary(at.saturating_sub(300));
            let end = text.ceil_char_boundary((at + 100).min(text.len()));
            panic!("{what} shows {trace}: …{}…", &text[start..end]);
        }
    }
}

/// Settings of one cloud: its table, what goes into the environment, and what goes onto the command line.
struct Cloud {
    table: &'static str,
    environment: Vec<(&'static str, String)>,
    options: Vec<String>,
}

fn clouds(endpoint: &str) -> Vec<Cloud> {
    let account = format!(
        "{{\"type\":\"service_account\",\"private_key\":\"-----BEGIN PRIVATE KEY-----\\n{}\\n-----END PRIVATE KEY-----\\n\",\
         \"private_key_id\":\"{}\",\"client_email\":\"a@b.c\",\"gcs_base_url\":\"{endpoint}\",\"disable_oauth\":false}}",
        PLANTED[4], PLANTED[4]
    );
    let option = |name: &str, value: &str| format!("{name}={value}");
    let quick = [option("timeout", "1s"), option("retry_timeout", "1s"), option("max_retries", "1")];
    let with = |more: &[String]| [&quick[..], more].concat();
    vec![
        Cloud {
            table: "s3://bucket/t",
            environment: vec![
                ("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE".into()),
                ("AWS_SECRET_ACCESS_KEY", PLANTED[0].into()),
                ("AWS_SESSION_TOKEN", PLANTED[1].into()),
                ("AWS_REGION", "us-east-1".into()),
                ("AWS_ENDPOINT_URL", endpoint.into()),
            ],
            options: with(&[]),
        },
        Cloud {
            table: "s3://bucket/t",
            environment: vec![("AWS_REGION", "us-east-1".into())],
            options: with(&[
                option("endpoint", endpoint),
                option("access_key_id", "AKIAEXAMPLE"),
                option("secret_access_key", PLANTED[0]),
                option("aws_session_token", PLANTED[1]),
            ]),
        },
        // A user, a password and a signature in the address of the endpoint.
        Cloud {
            table: "s3://bucket/t",
            environment: vec![
                ("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE".into()),
                ("AWS_SECRET_ACCESS_KEY", PLANTED[0].into()),
                ("AWS_REGION", "us-east-1".into()),
            ],
            options: with(&[option(
                "endpoint",
                &endpoint.replace("http://", &format!("http://user:{}@", PLANTED[5])),
            )]),
        },
        Cloud {
            table: "az://container/t",
            environment: vec![
                ("AZURE_STORAGE_ACCOUNT_NAME", "account".into()),
                ("AZURE_STORAGE_ACCOUNT_KEY", PLANTED[2].into()),
                ("AZURE_ENDPOINT", endpoint.into()),
            ],
            options: with(&[option("endpoint", endpoint)]),
        },
        Cloud {
            table: "az://container/t",
            environment: vec![("AZURE_STORAGE_ACCOUNT_NAME", "account".into())],
            options: with(&[
                option("endpoint", endpoint),
                option("sas_token", &format!("sv=2021&sp=rwdl&sig={}", PLANTED[3])),
            ]),
        },
        Cloud {
            table: "gs://bucket/t",
            environment: vec![("GOOGLE_SERVICE_ACCOUNT_KEY", account.clone())],
            options: with(&[]),
        },
        Cloud {
            table: "gs://bucket/t",
            environment: vec![],
            options: with(&[option("service_account_key", &account)]),
        },
        Cloud {
            table: "gs://bucket/t",
            environment: vec![("GOOGLE_SERVICE_ACCOUNT_KEY", format!("{{{}", PLANTED[4]))],
            options: with(&[]),
        },
    ]
}

fn run(scene: &Scene, cloud: &Cloud, log: Option<&str>, args: &[&str]) -> std::process::Output {
    let mut command = scene.command(args);
    command.envs(cloud.environment.iter().map(|(name, value)| (*name, value.as_str())));
    for option in &cloud.options {
        command.args(["--store-option", option]);
    }
    match log {
        Some(filter) => command.env("RUST_LOG", filter),
        None => command.arg("-vvv"),
    };
    command.output().unwrap()
}

#[test]
fn no_failure_of_a_store_shows_a_secret() {
    let scene = Scene::new();
    scene.write("a.ndjson", &lines(["x"]));
    let server = Loopback::start();
    let endpoint =
        server.options().iter().find(|(name, _)| name == "endpoint").map(|(_, value)| value.clone()).unwrap();
    for mood in [Mood::Forbid, Mood::Down, Mood::NoBucket, Mood::StoreThenClose, Mood::CutBodies] {
        server.set(mood);
        for cloud in clouds(&endpoint) {
            let from = cloud.table.replace("/t", "/in/");
            for (log, args) in [
                (None, &["status", cloud.table][..]),
                (Some("trace"), &["status", cloud.table, "--output", "json"]),
                (None, &["ingest", "a.ndjson", "--into", cloud.table, "--key", "id", "--output", "json"]),
                (None, &["ingest", &from, "--into", "local", "--key", "id"]),
            ] {
                let output = run(&scene, &cloud, log, args);
                let what = format!("{mood:?} {args:?} {:?}", cloud.options);
                searched(&what, &output.stdout);
                searched(&what, &output.stderr);
                assert!(output.status.code().is_some(), "{what} crashed");
            }
        }
    }
}

#[test]
fn a_dead_endpoint_and_settings_that_make_no_sense_show_no_secret() {
    let scene = Scene::new();
    for endpoint in ["http://127.0.0.1:1", "no url at all", "http://[::1"] {
        for cloud in clouds(endpoint) {
            let output = run(&scene, &cloud, None, &["status", cloud.table]);
            searched(endpoint, &output.stdout);
            searched(endpoint, &output.stderr);
            assert_ne!(output.status.code(), Some(0));
        }
    }
    let secret = PLANTED[0];
    for option in [
        format!("no_such_setting={secret}"),
        secret.to_owned(),
        format!("={secret}"),
        format!("proxy_url=http://user:{secret}@127.0.0.1:1/"),
        format!("proxy_url={secret}"),
    ] {
        for table in ["s3://bucket/t", "gs://bucket/t", "az://container/t"] {
            let args =
                ["status", table, "--store-option", &option, "-vvv", "--store-option", "max_retries=0"];
            let mut command = scene.command(&args);
            command.env("AWS_ACCESS_KEY_ID", "me").env("AWS_SECRET_ACCESS_KEY", secret);
            let output = command.env("AZURE_STORAGE_ACCOUNT_NAME", "me").output().unwrap();
            searched(&option, &output.stdout);
            searched(&option, &output.stderr);
        }
    }
}

#[test]
fn secrets_within_locations_are_refused_and_not_repeated() {
    let scene = Scene::with_table();
    let secret = PLANTED[1];
    for location in [
        format!("s3://user:{secret}@bucket/t"),
        format!("s3://{secret}@bucket/t"),
        format!("s3://bucket/t?X-Amz-Signature={secret}"),
        format!("https://account.blob.core.windows.net/c/t?sv=1&sig={secret}"),
        format!("abfss://c:{secret}@account.dfs.core.windows.net/t"),
        format!("ftp://user:{secret}@host/t"),
    ] {
        for args in [
            vec!["status", &location],
            vec!["ingest", &location, "--into", "t"],
            vec!["ingest", "first.ndjson", "--into", &location, "--key", "id"],
        ] {
            let output = scene.command(&args).args(["-vvv", "--output", "json"]).output().unwrap();
            searched(&location, &output.stdout);
            searched(&location, &output.stderr);
            assert_eq!(output.status.code(), Some(2), "{args:?}");
        }
    }
    for entry in walkdir::WalkDir::new(scene.path("t")) {
        let entry = entry.unwrap();
        if entry.file_type().is_file() {
            searched(&entry.path().display().to_string(), &fs::read(entry.path()).unwrap());
        }
    }
}

#[test]
fn nothing_that_is_written_into_a_bucket_holds_a_secret() {
    let server = Loopback::start();
    let scene = Scene::new();
    scene.write("a.ndjson", &lines(["x", "y", "x"]));
    scene.write("bad.ndjson", "{\"id\":\"z\"}\n{broken\n");
    let options: Vec<String> =
        server.options().iter().map(|(name, value)| format!("{name}={value}")).collect();
    let go = |args: &[&str]| {
        let mut command = scene.command(args);
        for option in &options {
            command.args(["--store-option", option]);
        }
        command.env("AWS_SESSION_TOKEN", PLANTED[1]).env("AWS_SECRET_ACCESS_KEY", PLANTED[0]);
        let output = command.arg("-vvv").output().unwrap();
        searched(&format!("{args:?}"), &output.stdout);
        searched(&format!("{args:?}"), &output.stderr);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    go(&["ingest", "a.ndjson", "bad.ndjson", "--into", "s3://bucket/t", "--key", "id", "--batch-id", "b"]);
    for command in ["status", "log", "show", "files", "verify", "quarantine", "compact"] {
        go(&[command, "s3://bucket/t"]);
        go(&[command, "s3://bucket/t", "--output", "json"]);
    }
    let files = String::from_utf8(go(&["files", "s3://bucket/t"])).unwrap();
    let mut seen = 0;
    for name in files.lines().map(|url| url.trim_start_matches("s3://").to_owned()).chain([
        "bucket/t/_dedupe/table.json".to_owned(),
        "bucket/t/_dedupe/ledger/00000000000000000000.json".to_owned(),
        "bucket/t/_dedupe/ledger/00000000000000000001.json".to_owned(),
    ]) {
        searched(&name, &server.object(&name).unwrap_or_else(|| panic!("{name} is not there")));
        seen += 1;
    }
    assert!(seen >= 4);
}

/// The token key as it stands in `table.json`.
fn token_key(scene: &Scene) -> String {
    let text = fs::read_to_string(scene.path("t/_dedupe/table.json")).unwrap();
    let identity: serde_json::Value = serde_json::from_str(&text).unwrap();
    let key = identity["token"]["key"].as_str().unwrap().to_owned();
    assert_eq!(key.len(), 32);
    key
}

#[test]
fn the_token_key_is_printed_by_no_command() {
    let scene = Scene::with_table();
    let key = token_key(&scene);
    let bytes: Vec<u8> =
        (0..16).map(|at| u8::from_str_radix(&key[2 * at..2 * at + 2], 16).unwrap()).collect();
    let forms = [key.clone(), key.to_uppercase(), format!("{bytes:?}"), format!("{:?}", &bytes[..4])];
    scene.write("b.ndjson", &lines(["e"]));
    let commands: [&[&str]; 15] = [
        &["status", "t"],
        &["log", "t"],
        &["show", "t"],
        &["show", "t", "0"],
        &["files", "t"],
        &["outcome", "t", "one"],
        &["outcome", "t", "two"],
        &["explain", "t", "--key", "id=a"],
        &["explain", "t", "--key", "id=zz"],
        &["explain", "t", "--key", "n=1"],
        &["verify", "t"],
        &["tokens", "t", "-o", "tokens.parquet"],
        &["quarantine", "t"],
        &["compact", "t"],
        &["ingest", "b.ndjson", "--into", "t"],
    ];
    for args in commands {
        for more in [&["-vvv"][..], &["-vvv", "--output", "json"]] {
            let _ = fs::remove_file(scene.path("tokens.parquet"));
            let output = scene.command(&[args, more].concat()).env("RUST_LOG", "trace").output().unwrap();
            let all = [&output.stdout[..], &output.stderr].concat();
            let told = String::from_utf8_lossy(&all);
            for form in &forms {
                assert!(!told.contains(form.as_str()), "{args:?} shows the token key");
            }
        }
    }
    for entry in walkdir::WalkDir::new(scene.path(".")).into_iter().map(Result::unwrap) {
        let is_identity = entry.path().ends_with("_dedupe/table.json");
        if entry.file_type().is_file() && !is_identity {
            let text = fs::read(entry.path()).unwrap();
            let found =
                [key.as_bytes(), &bytes].iter().any(|part| text.windows(part.len()).any(|w| w == *part));
            assert!(!found, "{} holds the token key", entry.path().display());
        }
    }
}

#[test]
fn no_damage_to_the_tables_identity_brings_the_token_key_into_a_message() {
    let scene = Scene::with_table();
    let key = token_key(&scene);
    let path = scene.path("t/_dedupe/table.json");
    let sound = fs::read_to_string(&path).unwrap();
    let at = sound.find(&key).unwrap();
    let damages = [
        sound.replace(&key, &format!("{key}00")),
        sound.replace(&key, &format!("{}zz", &key[..30])),
        sound.replace(&format!("\"{key}\""), &format!("[\"{key}\"]")),
        sound.replace("\"key\"", "\"kex\""),
        sound.replace("\"hash\": \"", &format!("\"hash\": \"{key}")),
        sound.replace("\"encoding\": 1", &format!("\"encoding\": \"{key}\"")),
        sound.replace("\"encoding\": 1", "\"encoding\": 7"),
        sound.replace("\"format\": 1", "\"format\": 9"),
        sound.replace("\"kind\": \"text\"", &format!("\"kind\": \"{key}\"")),
        sound[..at + 20].to_owned(),
        format!("{key}{sound}"),
        sound.replace("\"table\"", &format!("\"{key}\"")),
    ];
    for damaged in damages {
        assert_ne!(damaged, sound);
        // Sealed, as far as it can be: without a seal it is not even looked at.
        fs::write(&path, resealed(&damaged)).unwrap();
        for args in [&["status", "t"][..], &["verify", "t"], &["ingest", "first.ndjson", "--into", "t"]] {
            let output = scene
                .command(&[args, &["--output", "json", "-vvv"]].concat())
                .env("RUST_LOG", "trace")
                .output();
            let output = output.unwrap();
            let all = [&output.stdout[..], &output.stderr].concat();
            let told = String::from_utf8_lossy(&all);
            assert!(!told.contains(&key[..12]), "{args:?} with {damaged}: {told}");
            assert_ne!(output.status.code(), Some(101), "{told}");
        }
    }
}
