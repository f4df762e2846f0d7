//! Queries whose files a vacuum deletes between plan and run.

use std::sync::Arc;
use std::time::Duration;

use datafusion::error::DataFusionError;
use datafusion::parquet::errors::ParquetError;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::{ExecutionPlan, collect};
use dedupe::Error;
use dedupe::ledger::entry::Compact;
use dedupe::ledger::log::{Proposal, Proposer};
use dedupe::ledger::name::Namer;
use dedupe::ledger::{Body, Ledger};
use dedupe::operator::{DedupeDataFrame, DedupeTable, error_of};
use dedupe::session::SessionOptions;
use dedupe::upkeep::vacuum::{VacuumOptions, vacuum};

use crate::scene::*;

impl Scene {
    async fn ledger(&self) -> Ledger {
        Ledger::open(self.table.ledger().store().clone()).await.unwrap().unwrap()
    }

    async fn scan(&self) -> Arc<dyn ExecutionPlan> {
        let mut table = self.table.clone();
        table.refresh().await.unwrap();
        let table = DedupeTable::try_new(table, None, SessionOptions::default()).unwrap();
        self.context.read_table(Arc::new(table)).unwrap().create_physical_plan().await.unwrap()
    }
}

/// Puts a copy of each data file in its place, as a compaction of data would do.
async fn files_replaced(ledger: &mut Ledger) {
    let by = Proposer::new().unwrap();
    let mut namer = Namer::new(&by.session, ledger.state().entries);
    let mut compact = Compact::default();
    ledger.read_files().await.unwrap();
    for live in ledger.state().files().unwrap().clone().into_values() {
        let (mut file, bytes) =
            (live.item.clone(), ledger.store().get(&live.item.name).await.unwrap().unwrap());
        file.name = namer.next("data", "parquet");
        ledger.store().put(&file.name, bytes).await.unwrap();
        compact.files_removed.push(live.item.name);
        compact.files_added.push(file);
    }
    let entry = ledger.entry(&by, Body::Compact(compact)).unwrap();
    assert!(matches!(ledger.propose(&entry).await.unwrap(), Proposal::Committed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_that_a_vacuum_overtook_says_so_and_can_be_planned_again() {
    let scene = Scene::new().await;
    for keys in [0..10, 10..20] {
        let session = scene.session();
        scene.one(&rows(keys, 1)).dedupe(&session).unwrap().collect().await.unwrap();
        session.commit().await.unwrap();
    }
    let old = scene.scan().await;
    let mut ledger = scene.ledger().await;
    files_replaced(&mut ledger).await;
    // Until the vacuum all is there.
    let again = reset_plan_states(old.clone()).unwrap();
    assert_eq!(of_batches(&collect(old, scene.context.task_ctx()).await.unwrap()).len(), 20);
    let mut options = VacuumOptions::default();
    options.grace = Duration::ZERO;
    let report = vacuum(&mut ledger, &options).await.unwrap();
    assert!(report.version.is_some(), "{report:?}");
    let error = collect(again, scene.context.task_ctx()).await.unwrap_err();
    assert!(matches!(error_of(&error), Some(Error::SnapshotExpired { version: 2, oldest: 3 })), "{error:?}");
    assert!(error.to_string().contains("snapshot expired: version 2"), "{error}");
    assert!(error.to_string().contains("planned again"), "{error}");
    let new = scene.scan().await;
    assert_eq!(of_batches(&collect(new, scene.context.task_ctx()).await.unwrap()).len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_nobody_may_have_deleted_is_damage() {
    let scene = Scene::new().await;
    let session = scene.session();
    scene.one(&rows(0..10, 1)).dedupe(&session).unwrap().collect().await.unwrap();
    session.commit().await.unwrap();
    let scan = scene.scan().await;
    let mut ledger = scene.ledger().await;
    ledger.read_files().await.unwrap();
    let name = ledger.state().files().unwrap().keys().next().unwrap();
    ledger.store().delete(name).await.unwrap();
    let error = collect(scan, scene.context.task_ctx()).await.unwrap_err();
    assert!(matches!(error_of(&error), Some(Error::Corrupt { object, .. }) if object == name), "{error:?}");
}

#[test]
fn an_error_is_found_however_deep_it_lies() {
    let expired = || Error::SnapshotExpired { version: 1, oldest: 2 };
    let absent = object_store::Error::NotFound { path: "x".into(), source: expired().into() };
    let read = DataFusionError::ParquetError(Box::new(ParquetError::External(absent.into())));
    for error in [
        DataFusionError::External(expired().into()),
        DataFusionError::IoError(std::io::Error::other(expired())),
        DataFusionError::Context("within".into(), Box::new(DataFusionError::External(expired().into()))),
        DataFusionError::Shared(Arc::new(read)),
    ] {
        assert!(
            matches!(error_of(&error), Some(Error::SnapshotExpired { version: 1, oldest: 2 })),
            "{error:?}"
        );
    }
    assert!(error_of(&DataFusionError::Plan("no".into())).is_none());
}
