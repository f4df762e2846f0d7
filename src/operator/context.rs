//! What makes a DataFusion context know `dedupe` tables.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::catalog::{Session, TableProvider, TableProviderFactory};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SessionStateBuilder;
use datafusion::logical_expr::CreateExternalTable;
use datafusion::prelude::SessionContext;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::failure::external;
use super::functions;
use super::logical::DedupePlanner;
use super::provider::DedupeTable;
use crate::error::Error;
use crate::policy::{NullKey, Policy};
use crate::session::SessionOptions;
use crate::store::Store;
use crate::table::{NewTable, Table};

/// A context with DataFusion's defaults that knows `dedupe` tables and plans [`DedupeNode`](super::DedupeNode)s.
pub fn context() -> SessionContext {
    let state =
        SessionStateBuilder::new().with_default_features().with_query_planner(Arc::new(DedupePlanner));
    let context = SessionContext::new_with_state(state.build());
    register(&context);
    context
}

/// Makes `context` know `CREATE EXTERNAL TABLE … STORED AS DEDUPE`, and the functions `dedupe_log`, `dedupe_files` and
/// `dedupe_quarantine`, each of which takes a table's location. (For [`DedupeNode`](super::DedupeNode)s it must be built with
/// a query planner that has [`DedupePlanner`] among its extension planners, or with that itself.)
pub fn register(context: &SessionContext) {
    let state = context.state_ref();
    state.write().table_factories_mut().insert("DEDUPE".into(), Arc::new(DedupeTableFactory));
    for (name, function) in functions::all() {
        context.register_udtf(name, function);
    }
}

/// `CREATE EXTERNAL TABLE … STORED AS DEDUPE LOCATION '…' OPTIONS (…)`: opens the table, or creates it if there is none.
///
/// | option | |
/// |---|---|
/// | `key` | the key columns of a new table, separated by commas |
/// | `partition_by` | its partition expressions, separated by commas: `country, date(ts)` (or `PARTITIONED BY`) |
/// | `null_key` | what becomes of rows without a key: `quarantine`, `keep` or `fail` |
/// | `version` | reads the table as it was at that version |
/// | `store.…` | settings of the store: `store.region`, `store.endpoint`, … |
#[derive(Debug, Clone, Copy, Default)]
pub struct DedupeTableFactory;

impl DedupeTableFactory {
    async fn open(command: &CreateExternalTable) -> crate::Result<DedupeTable> {
        let [location] = command.locations.as_slice() else {
            return Err(Error::Usage("a dedupe table has one location".into()));
        };
        let mut options = Options::of(&command.options);
        let store = Store::open(location, &options.store)?;
        let (version, null_key) = (options.take("version"), options.take("null_key"));
        let (key, partition_by) = (options.take_list("key"), options.take_list("partition_by"));
        options.refuse_rest()?;
        if let Some(version) = version {
            let version = version.parse().map_err(|_| Error::Usage(format!("'{version}' is no version")))?;
            return DedupeTable::at(store, version).await;
        }
        let null_key = null_key.as_deref().map(null_key_of).transpose()?;
        let session = SessionOptions { null_key, ..SessionOptions::default() };
        let declared = (!command.schema.fields().is_empty()).then(|| command.schema.as_arrow());
        let partition_by = match partition_by.is_empty() {
            true => command.table_partition_cols.clone(),
            false => partition_by,
        };
        let policy = Policy { null_key: session.null_key.unwrap_or_default(), partition_by };
        let mut new = NewTable::keyed_by(key);
        new.policy = policy;
        let table = match (Table::open(store.clone()).await?, declared) {
            (Some(table), _) if new.key.is_empty() => table,
            (_, Some(declared)) if !new.key.is_empty() => {
                Table::open_or_create(store, declared, &new).await?
            }
            (Some(table), None) if table.key() == new.key => table,
            _ => {
                return Err(Error::Usage(format!(
                    "{} is not a table with that key yet: to create it declare its columns, and name those that identify \
                     an event with OPTIONS ('key' '…')",
                    store.url()
                )));
            }
        };
        DedupeTable::try_new(table, declared, session)
    }
}

impl TableProviderFactory for DedupeTableFactory {
    fn create<'a, 'b, 'c, 'r>(
        &'a self,
        _: &'b dyn Session,
        command: &'c CreateExternalTable,
    ) -> BoxFuture<'r, Result<Arc<dyn TableProvider>>>
    where
        'a: 'r,
        'b: 'r,
        'c: 'r,
    {
        async move {
            let table = Self::open(command).await.map_err(external)?;
            Ok::<_, DataFusionError>(Arc::new(table) as Arc<dyn TableProvider>)
        }
        .boxed()
    }
}

/// The options of a statement. (DataFusion puts `format.` before names that have no dot.)
struct Options {
    named: HashMap<String, String>,
    store: Vec<(String, String)>,
}

impl Options {
    fn of(given: &HashMap<String, String>) -> Self {
        let mut options = Self { named: HashMap::new(), store: Vec::new() };
        for (name, value) in given {
            match name.strip_prefix("store.") {
                Some(name) => options.store.push((name.to_owned(), value.clone())),
                None => {
                    let name = name.strip_prefix("format.").unwrap_or(name);
                    options.named.insert(name.to_owned(), value.clone());
                }
            }
        }
        options.store.sort();
        options
    }

    fn take(&mut self, name: &str) -> Option<String> {
        self.named.remove(name)
    }

    fn take_list(&mut self, name: &str) -> Vec<String> {
        let list = self.take(name).unwrap_or_default();
        list.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
    }

    fn refuse_rest(self) -> crate::Result<()> {
        match self.named.keys().min() {
            Some(unknown) => Err(Error::Usage(format!(
                "a dedupe table has no option '{unknown}'; it has: key, partition_by, null_key, version, store.…"
            ))),
            None => Ok(()),
        }
    }
}

fn null_key_of(text: &str) -> crate::Result<NullKey> {
    match text {
        "quarantine" => Ok(NullKey::Quarantine),
        "keep" => Ok(NullKey::Keep),
        "fail" => Ok(NullKey::Fail),
        other => Err(Error::Usage(format!("null_key is 'quarantine', 'keep' or 'fail', not '{other}'"))),
    }
}
