//! Credentials are planted where users put them; then queries fail in many ways, and everything that their errors say is
//! searched, however deep one looks.

use std::error::Error;

use datafusion::error::DataFusionError;
use datafusion::physical_plan::collect;
use dedupe::operator::error_of;

use crate::loopback::{Loopback, Mood};

const SETTINGS: [(&str, &str); 6] = [
    ("endpoint", ""),
    ("region", "us-east-1"),
    ("access_key_id", "PLANTED-ACCESS-KEY"),
    ("secret_access_key", "PlantedSecretKey0123456789abcdef01234567"),
    ("session_token", "PlantedSessionToken0123456789"),
    ("max_retries", "1"),
];

/// Parts by which a secret is recognised.
const TRACES: [&str; 2] = ["Planted", "PLANTED"];

fn searched(what: &str, error: &DataFusionError) {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(cause) = next {
        for text in [cause.to_string(), format!("{cause:?}")] {
            assert!(!TRACES.iter().any(|trace| text.contains(trace)), "{what} shows a secret: {text}");
        }
        next = match cause.downcast_ref::<std::io::Error>() {
            Some(io) => io.get_ref().map(|held| held as _),
            None => cause.source(),
        };
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_failure_of_a_query_shows_a_secret() {
    let server = Loopback::start();
    let context = dedupe::operator::context();
    let settings = server.options_of(&SETTINGS);
    let settings: String =
        settings.iter().map(|(name, value)| format!(", 'store.{name}' '{value}'")).collect();
    let create = format!(
        "CREATE EXTERNAL TABLE events (id BIGINT, n INT) STORED AS DEDUPE LOCATION 's3://bucket/t' \
         OPTIONS ('key' 'id'{settings})"
    );
    let run = async |sql: &str| context.sql(sql).await?.collect().await;
    run(&create).await.unwrap();
    run("INSERT INTO events VALUES (1, 10), (2, 20)").await.unwrap();
    assert_eq!(
        run("SELECT * FROM events").await.unwrap().iter().map(|rows| rows.num_rows()).sum::<usize>(),
        2
    );
    for mood in [Mood::Forbid, Mood::Down, Mood::NoBucket, Mood::CutBodies] {
        server.set(Mood::Honest);
        let scan = context.sql("SELECT * FROM events").await.unwrap().create_physical_plan().await.unwrap();
        server.set(mood);
        // The scan's own reads fail, then those of its planning, and those of an insert.
        for (what, failed) in [
            ("scan", collect(scan, context.task_ctx()).await),
            ("select", run("SELECT * FROM events").await),
            ("insert", run("INSERT INTO events VALUES (3, 30)").await),
            ("create", run(&create.replace("TABLE events", "TABLE others")).await),
        ] {
            match failed {
                Err(error) => {
                    searched(&format!("{what}, {mood:?}"), &error);
                    if what == "scan" && mood == Mood::Forbid {
                        let ours = error_of(&error).unwrap().to_string();
                        assert!(ours.contains("read s3://bucket/t/data/"), "{ours}");
                        assert!(ours.contains("SignatureDoesNotMatch: No."), "{ours}");
                        assert!(ours.contains("Check the credentials"), "{ours}");
                    }
                }
                // What was cut may be asked for again.
                Ok(_) => assert_eq!(mood, Mood::CutBodies, "{what}"),
            }
        }
    }
}
