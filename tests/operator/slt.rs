//! Runs the files in `sql/`: statements and queries with what they must give, in the format of sqllogictest.
//!
//! `statement ok`, `statement error TEXT` (the message contains TEXT), `query [rowsort]` with the rows after `----`, a
//! column's values separated by a tab. `$DIR` stands for a folder of the file's own. With `SLT_COMPLETE=1` the files are
//! written anew with what the queries give.

use std::path::{Path, PathBuf};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::execution::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use dedupe::operator::DedupePlanner;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_files_in_sql() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/operator/sql");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let given = run(&file, &text).await;
        if std::env::var_os("SLT_COMPLETE").is_some() {
            std::fs::write(&file, given).unwrap();
        } else {
            assert_eq!(given, text, "{}", file.display());
        }
    }
}

/// The file with what its queries really give.
async fn run(file: &Path, text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().to_str().unwrap();
    let state = SessionStateBuilder::new()
        .with_default_features()
        .with_config(SessionConfig::new().with_target_partitions(2))
        .with_query_planner(std::sync::Arc::new(DedupePlanner));
    let context = SessionContext::new_with_state(state.build());
    dedupe::operator::register(&context);
    let mut given = Vec::new();
    for record in text.trim_end().split("\n\n") {
        let comments: Vec<&str> = record.lines().take_while(|line| line.starts_with('#')).collect();
        let rest: Vec<&str> = record.lines().skip(comments.len()).collect();
        let Some((head, body)) = rest.split_first() else {
            given.push(record.to_owned());
            continue;
        };
        let body = body.join("\n");
        let (sql, _) = body.split_once("\n----").unwrap_or((&body, ""));
        let result = execute(&context, &sql.replace("$DIR", place)).await;
        let outcome = match (head.split_once(' ').unwrap_or((head, "")), result) {
            (("statement", "ok"), Ok(_)) => String::new(),
            (("statement", expected), Err(error)) if expected.starts_with("error") => {
                let wanted = expected.trim_start_matches("error").trim_start();
                assert!(error.contains(wanted), "{}: {sql}: {error}", file.display());
                String::new()
            }
            (("query", how), Ok(mut rows)) => {
                if how == "rowsort" {
                    rows.sort();
                }
                let rows: String =
                    rows.iter().map(|row| format!("\n{}", row.replace(place, "$DIR"))).collect();
                format!("\n----{rows}")
            }
            (_, result) => panic!("{}: {head}: {sql}: {result:?}", file.display()),
        };
        let comments: String = comments.iter().map(|line| format!("{line}\n")).collect();
        given.push(format!("{comments}{head}\n{sql}{outcome}"));
    }
    given.join("\n\n") + "\n"
}

async fn execute(context: &SessionContext, sql: &str) -> Result<Vec<String>, String> {
    let frame = context.sql(sql).await.map_err(|error| error.to_string())?;
    let batches = frame.collect().await.map_err(|error| error.to_string())?;
    Ok(batches.iter().flat_map(lines).collect())
}

fn lines(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let columns: Vec<_> = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column.as_ref(), &options).unwrap())
        .collect();
    (0..batch.num_rows())
        .map(|row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("\t"))
        .collect()
}
