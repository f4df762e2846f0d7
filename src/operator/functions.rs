//! `dedupe_log`, `dedupe_files` and `dedupe_quarantine`: what a table says of itself, as tables.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, UInt64Array};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::datasource::TableType;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::failure::external;
use crate::error::Error;
use crate::ledger::{Entry, Ledger};
use crate::store::Store;

/// The largest quarantine file that is shown: it is held in memory.
const MAX_QUARANTINE: u64 = 256 << 20;

/// All functions, with their names.
pub(super) fn all() -> Vec<(&'static str, Arc<dyn TableFunctionImpl>)> {
    let of = |what| Arc::new(Function(what)) as Arc<dyn TableFunctionImpl>;
    vec![
        ("dedupe_log", of(What::Log)),
        ("dedupe_files", of(What::Files)),
        ("dedupe_quarantine", of(What::Quarantine)),
    ]
}

#[derive(Debug, Clone, Copy)]
enum What {
    Log,
    Files,
    Quarantine,
}

#[derive(Debug)]
struct Function(What);

impl TableFunctionImpl for Function {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        let [Expr::Literal(ScalarValue::Utf8(Some(location)) | ScalarValue::Utf8View(Some(location)), _)] =
            args.exprs()
        else {
            return Err(DataFusionError::Plan(
                "it takes one argument, the location of a table as text".into(),
            ));
        };
        let store = Store::open(location, &[]).map_err(external)?;
        Ok(Arc::new(View { what: self.0, store, schema: self.0.schema() }))
    }
}

/// What a table says of itself at the time of a query.
struct View {
    what: What,
    store: Store,
    schema: SchemaRef,
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {:?}", self.what, self.store)
    }
}

impl TableProvider for View {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn scan<'a, 'b, 'c, 'd, 'r>(
        &'a self,
        _: &'b dyn Session,
        projection: Option<&'c Vec<usize>>,
        _: &'d [Expr],
        _: Option<usize>,
    ) -> BoxFuture<'r, Result<Arc<dyn ExecutionPlan>>>
    where
        'a: 'r,
        'b: 'r,
        'c: 'r,
        'd: 'r,
    {
        async move {
            let columns = self.read().await.map_err(external)?;
            let rows = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
            let source = MemorySourceConfig::try_new_exec(
                &[vec![rows]],
                Arc::clone(&self.schema),
                projection.cloned(),
            )?;
            Ok(source as Arc<dyn ExecutionPlan>)
        }
        .boxed()
    }
}

impl View {
    async fn read(&self) -> crate::Result<Vec<ArrayRef>> {
        let ledger = Ledger::open(self.store.clone()).await?;
        let mut ledger =
            ledger.ok_or_else(|| Error::Usage(format!("{} is not a table", self.store.url())))?;
        ledger.read_files().await?;
        match self.what {
            What::Log => log(&ledger).await,
            What::Files => files(&ledger),
            What::Quarantine => quarantine(&ledger).await,
        }
    }
}

impl What {
    fn schema(self) -> SchemaRef {
        let (number, text) = (DataType::UInt64, DataType::Utf8);
        let fields = match self {
            Self::Log => vec![
                ("version", number.clone(), false),
                ("time", text.clone(), false),
                ("kind", text.clone(), false),
                ("batch", text.clone(), true),
                ("session", text.clone(), false),
                ("writer", text, false),
                ("read", number.clone(), true),
                ("accepted", number.clone(), true),
                ("duplicate", number.clone(), true),
                ("replayed", number.clone(), true),
                ("rejected", number.clone(), true),
                ("files", number.clone(), true),
                ("bytes", number, true),
            ],
            Self::Files => vec![
                ("version", number.clone(), false),
                ("path", text, false),
                ("rows", number.clone(), false),
                ("bytes", number.clone(), false),
                ("keyless", number, false),
            ],
            Self::Quarantine => vec![
                ("version", number.clone(), false),
                ("source", text.clone(), true),
                ("line", DataType::Int64, true),
                ("row", DataType::Int64, true),
                ("reason", text.clone(), true),
                ("record", text, true),
            ],
        };
        let field = |(name, kind, nullable): (&str, DataType, bool)| Field::new(name, kind, nullable);
        Arc::new(Schema::new(fields.into_iter().map(field).collect::<Vec<_>>()))
    }
}

async fn log(ledger: &Ledger) -> crate::Result<Vec<ArrayRef>> {
    let mut entries: Vec<Entry> = Vec::new();
    for version in 0..=ledger.version() {
        entries.extend(ledger.read(version).await?.map(|mut entry| {
            // Held for every version: only what is shown of it.
            if let crate::ledger::Body::Ingest(ingest) = &mut entry.body {
                (ingest.sources, ingest.inline) = Default::default();
            }
            entry
        }));
    }
    let text = |of: fn(&Entry) -> Option<String>| -> ArrayRef {
        Arc::new(entries.iter().map(of).collect::<StringArray>())
    };
    let number = |of: fn(&Entry) -> Option<u64>| -> ArrayRef {
        Arc::new(entries.iter().map(of).collect::<UInt64Array>())
    };
    Ok(vec![
        number(|entry| Some(entry.version)),
        text(|entry| Some(entry.time.clone())),
        text(|entry| Some(entry.kind().to_owned())),
        text(|entry| Some(entry.ingest()?.batch.as_ref()?.id.clone())),
        text(|entry| Some(entry.session.clone())),
        text(|entry| Some(entry.writer.clone())),
        number(|entry| Some(entry.ingest()?.rows.read)),
        number(|entry| Some(entry.ingest()?.rows.accepted)),
        number(|entry| Some(entry.ingest()?.rows.duplicate)),
        number(|entry| Some(entry.ingest()?.rows.replayed)),
        number(|entry| Some(entry.ingest()?.rows.rejected)),
        number(|entry| Some(entry.ingest()?.files.len() as u64)),
        number(|entry| Some(entry.ingest()?.files.iter().map(|file| file.bytes).sum())),
    ])
}

fn files(ledger: &Ledger) -> crate::Result<Vec<ArrayRef>> {
    let files = ledger.state().files()?;
    let files = || files.values();
    let number =
        |of: &dyn Fn(&crate::ledger::state::Live<crate::ledger::entry::DataFile>) -> u64| -> ArrayRef {
            Arc::new(UInt64Array::from_iter_values(files().map(of)))
        };
    let path = StringArray::from_iter_values(files().map(|file| ledger.store().location_of(&file.item.name)));
    Ok(vec![
        number(&|file| file.since),
        Arc::new(path),
        number(&|file| file.item.rows),
        number(&|file| file.item.bytes),
        number(&|file| file.item.keyless),
    ])
}

async fn quarantine(ledger: &Ledger) -> crate::Result<Vec<ArrayRef>> {
    let mut rows: Vec<(u64, serde_json::Value)> = Vec::new();
    for file in ledger.state().quarantine()?.values() {
        let bytes = ledger.store().get_limited(&file.item.name, MAX_QUARANTINE).await?;
        let bytes = bytes.ok_or_else(|| Error::corrupt(&file.item.name, "it is absent"))?;
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let row = serde_json::from_slice(line).map_err(|e| Error::corrupt(&file.item.name, e))?;
            rows.push((file.since, row));
        }
    }
    rows.sort_by_key(|(version, _)| *version);
    let text = |name: &str| -> ArrayRef {
        let of = |(_, row): &(u64, serde_json::Value)| Some(row.get(name)?.as_str()?.to_owned());
        Arc::new(rows.iter().map(of).collect::<StringArray>())
    };
    let number = |name: &str| -> ArrayRef {
        let of = |(_, row): &(u64, serde_json::Value)| row.get(name)?.as_i64();
        Arc::new(rows.iter().map(of).collect::<Int64Array>())
    };
    // The row as it was: a line of text, or an object.
    let record = rows.iter().map(|(_, row)| {
        let text = row.get("raw").or(row.get("raw_base64")).and_then(|raw| raw.as_str());
        text.map(str::to_owned).or_else(|| Some(row.get("record")?.to_string()))
    });
    Ok(vec![
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|(version, _)| *version))),
        text("source"),
        number("line"),
        number("row"),
        text("reason"),
        Arc::new(record.collect::<StringArray>()),
    ])
}
