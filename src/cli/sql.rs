//! `dedupe sql TABLE QUERY`: questions to a table's rows.

use arrow::array::RecordBatch;
use arrow::json::LineDelimitedWriter;
use datafusion::arrow::util::pretty::pretty_format_batches_with_schema;
use datafusion::execution::context::SQLOptions;
use futures::TryStreamExt;
use serde_json::json;
use serde_json::value::RawValue;

use super::args::TableArg;
use super::exit::Exit;
use super::out::{Out, Stop};
use super::{Context, open, table_url};
use crate::error::{Error, Result};
use crate::operator::{self, DedupeTable, told};
use crate::session::SessionOptions;
use crate::store::Store;
use crate::table::Table;

/// What the table is called in a query.
const NAME: &str = "t";

/// Rows that are laid out together as text.
const PAGE: usize = 10_000;

const EXAMPLES: &str = "\
Examples:
  dedupe sql /lake/events \"SELECT country, count(*) FROM t GROUP BY country ORDER BY 2 DESC LIMIT 10\"
  dedupe sql s3://lake/events \"SELECT * FROM t WHERE event_id = '4f1c'\" --output json
  dedupe sql /lake/events \"SELECT count(*) FROM t\" --version 41
  dedupe sql /lake/events \"SELECT reason, count(*) FROM dedupe_quarantine('/lake/events') GROUP BY reason\"

The table is called t. Nothing can be changed: rows are added by `dedupe ingest`.";

/// Asks a table in SQL.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    table: TableArg,
    /// The query, in which the table is called t.
    #[arg(value_name = "QUERY")]
    query: String,
    /// As it was at this version [default: the newest]
    #[arg(long, value_name = "N")]
    version: Option<u64>,
}

pub(super) async fn run(args: Args, context: &Context, out: &mut Out) -> Result<Exit, Stop> {
    // Says what is wrong in the words of every other command.
    let ledger = open(&args.table.table, args.version, context).await?;
    let head = json!({ "table": table_url(ledger.store()), "version": ledger.state().version() });
    let store = Store::open(&args.table.table, &context.store_options)?;
    let table = match (args.version, Table::open(store.clone()).await?) {
        (None, Some(table)) => DedupeTable::try_new(table, None, SessionOptions::default())?,
        _ => DedupeTable::at(store, ledger.version()).await?,
    };
    let session = operator::context();
    session.register_table(NAME, std::sync::Arc::new(table)).map_err(told)?;
    let reading = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    let frame = session.sql_with_options(&args.query, reading).await.map_err(told)?;
    let mut batches = frame.execute_stream().await.map_err(told)?;
    if out.is_json() {
        // What fails at once is told as an error, while it still can be.
        let mut next = batches.try_next().await.map_err(told)?;
        out.open_list(&head, "rows")?;
        let mut first = true;
        while let Some(batch) = next {
            for line in lines(&batch)?.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let row: &RawValue = serde_json::from_slice(line)
                    .map_err(|e| Error::Internal(format!("a row was written as JSON that is none: {e}")))?;
                out.item(first, &row)?;
                first = false;
            }
            next = batches.try_next().await.map_err(told)?;
        }
        out.close_list()?;
        return Ok(Exit::Done);
    }
    let (mut page, mut rows, mut pages) = (Vec::new(), 0, 0);
    loop {
        let batch = batches.try_next().await.map_err(told)?;
        let ended = batch.is_none();
        rows += batch.as_ref().map_or(0, RecordBatch::num_rows);
        page.extend(batch);
        if (ended && (rows > 0 || pages == 0)) || rows >= PAGE {
            let text = pretty_format_batches_with_schema(batches.schema(), &std::mem::take(&mut page));
            out.line(&text.map_err(|e| told(e.into()))?.to_string())?;
            (rows, pages) = (0, pages + 1);
        }
        if ended {
            return Ok(Exit::Done);
        }
    }
}

/// Rows as JSON objects, one a line, nulls spelled out.
fn lines(batch: &RecordBatch) -> Result<Vec<u8>> {
    let shown = |e: arrow::error::ArrowError| Error::Refused(format!("a row cannot be shown as JSON: {e}"));
    let builder = arrow::json::WriterBuilder::new().with_explicit_nulls(true);
    let mut writer: LineDelimitedWriter<_> = builder.build(Vec::new());
    writer.write(batch).map_err(shown)?;
    writer.finish().map_err(shown)?;
    Ok(writer.into_inner())
}
