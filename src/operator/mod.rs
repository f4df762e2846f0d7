//! Deduplication inside DataFusion: the other door to the same [`session`](crate::session).
//!
//! - A `dedupe` table in SQL: [`DedupeTable`] reads its live files and takes `INSERT INTO`, [`DedupeTableFactory`] is
//!   `CREATE EXTERNAL TABLE … STORED AS DEDUPE`, [`register`] makes a context know all of it, the functions that show a
//!   table's ledger, files and quarantine included.
//! - Any plan's rows, each key once: [`PlanSession`] and [`DedupeDataFrame::dedupe`], or [`DedupeExec`] itself.
//! - Between the sources of an ingest and its table: [`query`](query()).
//!
//! All judge rows in a session and commit it with one ledger entry: a query that fails marks nothing as seen.
//!
//! # SQL
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> datafusion::error::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! # let at = folder.path().join("events").display().to_string();
//! let context = dedupe::operator::context();
//! context.sql(&format!(
//!     "CREATE EXTERNAL TABLE events (id BIGINT, v VARCHAR) STORED AS DEDUPE LOCATION '{at}' OPTIONS ('key' 'id')"
//! )).await?.collect().await?;
//! context.sql("INSERT INTO events VALUES (1, 'a'), (2, 'b'), (1, 'c')").await?.collect().await?;
//! context.sql("INSERT INTO events VALUES (2, 'd'), (3, 'e')").await?.collect().await?;
//! let rows = context.sql("SELECT v FROM events ORDER BY id").await?.collect().await?;
//! # use datafusion::arrow::util::pretty::pretty_format_batches;
//! # let shown = pretty_format_batches(&rows)?.to_string();
//! # assert!(shown.contains("| a |\n| b |\n| e |"), "{shown}");
//! # Ok(())
//! # }
//! ```
//!
//! # DataFrame
//!
//! ```
//! # use std::sync::Arc;
//! # use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch};
//! use dedupe::operator::{DedupeDataFrame, PlanSession};
//! use dedupe::session::SessionOptions;
//! use dedupe::store::Store;
//! use dedupe::table::{NewTable, Table};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let at = folder.path().join("seen").display().to_string();
//! # let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 1]));
//! # let batch = RecordBatch::try_from_iter([("id", ids)])?;
//! let context = dedupe::operator::context();
//! let table = Table::open_or_create(Store::open(&at, &[])?, &batch.schema(), &NewTable::keyed_by(["id"])).await?;
//!
//! let session = PlanSession::new(&table, SessionOptions::default());
//! let first_seen = context.read_batch(batch)?.dedupe(&session)?.collect().await?;
//! assert_eq!(first_seen.iter().map(RecordBatch::num_rows).sum::<usize>(), 2);
//! // Until here nothing is seen for anybody else.
//! assert_eq!(session.commit().await?.rows.duplicate, 1);
//! # Ok(())
//! # }
//! ```

mod context;
mod exec;
mod failure;
mod functions;
mod insert;
mod logical;
mod provider;
mod prune;
mod query;
mod reading;
mod run;
mod session;

pub use context::{DedupeTableFactory, context, register};
pub use exec::DedupeExec;
pub use failure::error_of;
#[cfg(feature = "cluster")]
pub(crate) use failure::external;
pub(crate) use failure::told;
pub use insert::InsertExec;
pub use logical::{DedupeDataFrame, DedupeNode, DedupePlanner};
pub use provider::DedupeTable;
pub use query::query;
pub use session::{Keep, PlanSession};

use datafusion::error::{DataFusionError, Result};

use crate::error::Error;
use crate::store::Store;

/// Where somebody asks for a table, and there is none.
fn no_table(store: &Store) -> Error {
    Error::Usage(format!("{} is not a table", store.url()))
}

/// The input of a node that has one.
pub(crate) fn only<T>(node: &str, mut inputs: Vec<T>) -> Result<T> {
    match (inputs.pop(), inputs.is_empty()) {
        (Some(input), true) => Ok(input),
        _ => Err(DataFusionError::Internal(format!("{node} has one input"))),
    }
}
