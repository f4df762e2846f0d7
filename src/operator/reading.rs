//! How DataFusion gets at a table's files: by a name of its own for the table's store.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::DefaultParquetFileReaderFactory;
use datafusion::error::Result;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::parquet::arrow::arrow_reader::ArrowReaderOptions;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::parquet::errors::{ParquetError, Result as Read};
use datafusion::parquet::file::metadata::ParquetMetaData;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use xxhash_rust::xxh3::xxh3_64;

use super::failure::external;
use crate::error::Error;
use crate::ledger::Ledger;
use crate::store::Store;

/// Makes `runtime` know the objects of the table, for plans that read it at the version of `ledger`. Gives the name of that
/// store, and what reads files in it. Objects are at their names within the table.
pub(super) fn register(ledger: &Ledger, runtime: &RuntimeEnv) -> Result<(ObjectStoreUrl, Arc<Readers>)> {
    let url = url_of(ledger)?;
    let (store, version) = (ledger.store().clone(), ledger.version());
    let absent = move |name| absent(store.clone(), version, name).boxed();
    let reading = ledger.store().reading(Box::new(absent)).map_err(external)?;
    runtime.register_object_store(url.as_ref(), Arc::clone(&reading));
    let plain = DefaultParquetFileReaderFactory::new(Arc::clone(&reading));
    Ok((url, Arc::new(Readers { store: reading, plain })))
}

/// The same for the same table at the same place, in every process: a copy of a table elsewhere has its identity too.
fn url_of(ledger: &Ledger) -> Result<ObjectStoreUrl> {
    let place = xxh3_64(ledger.store().url().as_bytes());
    ObjectStoreUrl::parse(format!("dedupe://{}-{place:016x}", ledger.identity().table))
}

/// What to tell of an object that a plan of `version` (or of an older one) names, and that is not there: that a vacuum
/// deleted it, if it may have done so, and else that it is lost.
async fn absent(store: Store, version: u64, name: String) -> Error {
    if let Ok(Some(mut now)) = Ledger::open(store).await
        && now.state().oldest > 0
        && now.read_files().await.is_ok()
        && now.state().files().is_ok_and(|files| !files.contains_key(&name))
    {
        let oldest = now.state().oldest;
        return Error::SnapshotExpired { version: version.min(oldest - 1), oldest };
    }
    Error::corrupt(name, "it is absent")
}

/// Readers as DataFusion has them by itself, but for the error of a footer that cannot be read: of that it keeps the text
/// alone, so that nobody can tell any more what went wrong.
#[derive(Debug)]
pub(super) struct Readers {
    store: Arc<dyn ObjectStore>,
    plain: DefaultParquetFileReaderFactory,
}

impl ParquetFileReaderFactory for Readers {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let location = file.object_meta.location.clone();
        let plain = self.plain.create_reader(partition, file, metadata_size_hint, metrics)?;
        Ok(Box::new(Reader { plain, store: Arc::clone(&self.store), location }))
    }
}

struct Reader {
    plain: Box<dyn AsyncFileReader + Send>,
    store: Arc<dyn ObjectStore>,
    location: Path,
}

impl AsyncFileReader for Reader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Read<Bytes>> {
        self.plain.get_bytes(range)
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Read<Vec<Bytes>>> {
        self.plain.get_byte_ranges(ranges)
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Read<Arc<ParquetMetaData>>> {
        async move {
            let failed = match self.plain.get_metadata(options).await {
                Ok(metadata) => return Ok(metadata),
                Err(failed) => failed,
            };
            // Asked once more, the store says it itself.
            match self.store.get_range(&self.location, 0..1).await {
                Ok(_) => Err(failed),
                Err(told) => Err(ParquetError::External(Box::new(told))),
            }
        }
        .boxed()
    }
}
