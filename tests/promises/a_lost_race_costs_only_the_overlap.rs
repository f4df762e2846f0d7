//! Two sessions see the same version; one commits first. The other drops exactly the rows that the winner brought as
//! well, keeps every file that holds none of them, tells the truth about its rows, and leaves a table that verifies.

use std::collections::BTreeSet;

use crate::writer::*;
use arrow::datatypes::DataType;
use bytes::Bytes;
use dedupe::Error;
use dedupe::ledger::entry::InlineTokens;
use dedupe::ledger::{Body, name};
use dedupe::options::MIB;
use dedupe::policy::{NullKey, Policy};
use dedupe::sink::SinkOptions;
use dedupe::store::Put;
use dedupe::upkeep::compact::compact;
use dedupe::upkeep::verify::{VerifyOptions, verify};
use dedupe::verdict::Accounting;

fn accounting(accepted: u64, duplicate: u64, replayed: u64) -> Accounting {
    Accounting { read: accepted + duplicate + replayed, accepted, duplicate, replayed, ..Default::default() }
}

fn too_late(error: &Error) {
    assert!(matches!(error, Error::Fenced { .. }), "{error}");
    let reason = error.to_string();
    assert!(reason.contains("run again") && reason.contains("nothing was committed"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_files_with_rows_of_the_overlap_are_written_anew() {
    for place in Place::both(&Policy::default()).await {
        let (mut a, mut b) = (place.writer().await, place.writer().await);
        a.feed(&rows(0..100, 1)).await;
        for keys in [1000..1100, 50..150, 2000..2100] {
            b.feed(&rows(keys, 2)).await;
        }
        let first = a.commit().await;
        let second = b.commit().await;
        assert_eq!((first.version, second.version), (1, 2));
        assert_eq!(second.rows, accounting(250, 50, 0));
        // The files without overlap keep their names, which say stage 1; the other one is of the stage after A.
        let shapes: BTreeSet<_> = shapes(&second.files).into_iter().collect();
        assert_eq!(shapes, BTreeSet::from([(1, 100), (2, 50)]));
        assert_eq!(second.files.len(), 3);
        let ingest = place.ingest(2).await;
        let per_source: Vec<_> = ingest.sources.iter().map(|source| source.rows).collect();
        assert_eq!(per_source, [accounting(100, 0, 0), accounting(50, 50, 0), accounting(100, 0, 0)]);
        let expected: BTreeSet<_> =
            [rows(0..100, 1), rows(100..150, 2), rows(1000..1100, 2), rows(2000..2100, 2)]
                .concat()
                .into_iter()
                .collect();
        assert_eq!(place.rows().await, expected.into_iter().collect::<Vec<_>>());
        place.is_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_keeps_its_row_groups_in_order_and_its_origins() {
    // One file of several sources and row groups, the large one of which is copied as it is.
    let sink = SinkOptions { row_group_rows: 70_000, ..SinkOptions::default() };
    let options = with(|options| (options.sink, options.memory) = (sink, 256 * MIB));
    for place in Place::both(&Policy::default()).await {
        let mut a = place.writer().await;
        a.feed(&rows(99_990..100_010, 1)).await;
        let mut b = place.writer_with(options.clone()).await;
        b.feed(&rows(0..70_000, 2)).await;
        b.feed(&rows(99_000..100_000, 3)).await;
        b.feed(&rows(100_000..101_000, 4)).await;
        a.commit().await;
        let second = b.commit().await;
        assert_eq!(second.rows, accounting(71_980, 20, 0));
        let [file] = &second.files[..] else { panic!("{:?}", second.files) };
        assert_eq!(file.origin, [(0, 70_000), (1, 990), (2, 990)]);
        assert_eq!(stage(&file.name), 2);
        place.is_sound().await;
    }
}

/// Tokens stand inline or in runs on either side, and either side may be much the larger.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_sizes_of_the_two() {
    let most = InlineTokens::MAX as u64;
    for (ours, theirs) in [
        (100, 100),
        (100, 400),
        (400, 100),
        (400, 500),
        (100, 9000),
        (300, 9000),
        (9000, 300),
        (most, most + 1),
    ] {
        let place = Place::memory(&Policy::default()).await;
        let (mut a, mut b) = (place.writer().await, place.writer().await);
        a.feed(&rows(0..theirs, 1)).await;
        let overlap = ours.min(theirs) / 2;
        b.feed(&rows(theirs - overlap..theirs - overlap + ours, 2)).await;
        a.commit().await;
        let second = b.commit().await;
        assert_eq!(second.rows, accounting(ours - overlap, overlap, 0), "{ours} after {theirs}");
        assert_eq!(place.rows().await.len() as u64, ours + theirs - overlap);
        place.is_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_overlap_nothing_is_written_anew() {
    for place in Place::both(&Policy::default()).await {
        let (mut a, mut b) = (place.writer().await, place.writer().await);
        a.feed(&rows(0..400, 1)).await;
        b.feed(&rows(400..800, 2)).await;
        a.commit().await;
        let second = b.commit().await;
        assert_eq!(second.rows, accounting(400, 0, 0));
        let ingest = place.ingest(2).await;
        let names = ingest.files.iter().map(|file| &file.name).chain(ingest.runs.iter().map(|run| &run.name));
        assert!(names.map(|name| stage(name)).all(|stage| stage == 1));
        assert!(!ingest.runs.is_empty());
        place.is_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_loses_all_rows_commits_none() {
    for place in Place::both(&Policy::default()).await {
        for (version, count) in [(1, 50), (3, 500)] {
            let (mut a, mut b) = (place.writer().await, place.writer().await);
            let keys = version * 1000..version * 1000 + count;
            a.feed(&rows(keys.clone(), 1)).await;
            b.feed(&rows(keys, 2)).await;
            assert_eq!(a.commit().await.version, version);
            let second = b.commit().await;
            assert_eq!((second.version, second.rows), (version + 1, accounting(0, count, 0)));
            let ingest = place.ingest(version + 1).await;
            assert!(ingest.files.is_empty() && ingest.runs.is_empty() && ingest.inline.is_empty());
        }
        place.is_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_source_that_the_winner_consumed_are_replayed() {
    for place in Place::both(&Policy::default()).await {
        let mut before = place.writer().await;
        before.feed(&rows(0..10, 0)).await;
        before.commit().await;
        let (mut a, mut b) = (place.writer().await, place.writer().await);
        // Known before, new, and twice in the source itself.
        let shared = [rows(5..15, 7), rows(10..20, 8)].concat();
        a.source(Some(7), &[&shared]).await;
        b.source(Some(8), &[&rows(12..30, 2)]).await;
        b.source(Some(7), &[&shared]).await;
        a.commit().await;
        let second = b.commit().await;
        let ingest = place.ingest(3).await;
        let [other, replay] = &ingest.sources[..] else { panic!("{:?}", ingest.sources) };
        assert_eq!((other.replay_of, other.rows), (None, accounting(10, 8, 0)));
        assert_eq!((replay.replay_of, replay.rows), (Some(2), accounting(0, 0, 20)));
        assert_eq!(second.rows, accounting(10, 8, 20));
        place.is_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keyless_rows_of_a_source_that_the_winner_consumed_are_not_kept_twice() {
    let policy = Policy { null_key: NullKey::Keep, ..Policy::default() };
    for place in Place::both(&policy).await {
        let (mut a, mut b) = (place.writer().await, place.writer().await);
        let shared = [rows(0..50, 1), keyless(30, 1)].concat();
        a.source(Some(7), &[&shared]).await;
        b.source(Some(9), &[&keyless(5, 2), &rows(500..595, 2)]).await;
        b.source(Some(7), &[&shared]).await;
        b.source(None, &[&keyless(3, 2)]).await;
        a.commit().await;
        let second = b.commit().await;
        assert_eq!(second.rows, accounting(103, 0, 80));
        assert_eq!(place.ingest(2).await.keyless, 8);
        assert_eq!(place.rows().await.iter().filter(|(id, _)| id.is_none()).count(), 38);
        place.is_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn quarantined_rows_stay_quarantined() {
    for place in Place::both(&Policy::default()).await {
        let (mut a, mut b) = (place.writer().await, place.writer().await);
        let shared = [rows(0..50, 1), keyless(30, 1)].concat();
        a.source(Some(7), &[&shared]).await;
        b.source(Some(7), &[&shared]).await;
        a.commit().await;
        let second = b.commit().await;
        let expected = Accounting { read: 80, replayed: 50, rejected: 30, ..Default::default() };
        assert_eq!(second.rows, expected);
        assert_eq!(second.quarantine[0].rows, 30);
        place.is_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_batch_has_one_outcome() {
    for place in Place::both(&Policy::default()).await {
        let mut a = place.writer_with(batched("b", 5)).await;
        let mut b = place.writer_with(batched("b", 5)).await;
        let mut c = place.writer_with(batched("b", 6)).await;
        a.source(Some(7), &[&rows(0..100, 1)]).await;
        b.source(Some(7), &[&rows(0..100, 2)]).await;
        c.source(Some(8), &[&rows(0..100, 3)]).await;
        let first = a.commit().await;
        let second = b.commit().await;
        assert_eq!((second.version, second.rows), (first.version, first.rows));
        assert_eq!((first.batch_replayed, second.batch_replayed), (false, true));
        assert_eq!(second.files, first.files);
        let third = c.try_commit().await.unwrap_err();
        let Error::Refused(reason) = &third else { panic!("{third}") };
        assert!(reason.contains("\"b\"") && reason.contains("version 1"), "{reason}");
        assert_eq!(place.ledger().await.version(), 1);
        place.is_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_widen_the_schema_and_both_columns_stay() {
    for place in Place::both(&Policy::default()).await {
        let mut base = place.writer().await;
        base.feed(&rows(0..100, 0)).await;
        base.commit().await;
        let mut a = place.writer_of(&schema(&[("x", DataType::Int32)]), options()).await;
        let mut b =
            place.writer_of(&schema(&[("y", DataType::Utf8), ("x", DataType::Int64)]), options()).await;
        a.feed(&rows(50..200, 1)).await;
        b.feed(&rows(150..250, 2)).await;
        b.feed(&rows(300..400, 2)).await;
        a.commit().await;
        let second = b.commit().await;
        assert_eq!(second.rows, accounting(150, 50, 0));
        let state = place.ledger().await.state().clone();
        let columns: Vec<_> =
            state.schema.as_ref().unwrap().fields().iter().map(|f| f.name().as_str()).collect();
        assert_eq!(columns, ["id", "n", "x", "y"]);
        assert_eq!(state.schema.unwrap().field_with_name("x").unwrap().data_type(), &DataType::Int64);
        assert_eq!(place.rows().await.len(), 350);
        place.is_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_winner_widened_need_not_be_widened_again() {
    let place = Place::memory(&Policy::default()).await;
    let mut a = place.writer_of(&schema(&[("x", DataType::Int64)]), options()).await;
    let (mut b, mut c) =
        (place.writer().await, place.writer_of(&schema(&[("x", DataType::Int64)]), options()).await);
    a.feed(&rows(0..100, 1)).await;
    b.feed(&rows(50..150, 2)).await;
    c.feed(&rows(140..240, 3)).await;
    a.commit().await;
    b.commit().await;
    c.commit().await;
    assert_eq!(place.ledger().await.state().schema_version, 1);
    assert!(place.ingest(2).await.schema.is_none() && place.ingest(3).await.schema.is_none());
    assert_eq!(place.keys().await.len(), 240);
    place.is_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_no_longer_fits_is_refused() {
    for first_rows in [true, false] {
        for place in Place::both(&Policy::default()).await {
            if first_rows {
                let mut base = place.writer().await;
                base.feed(&rows(0..10, 0)).await;
                base.commit().await;
            }
            let mut a = place.writer_of(&schema(&[("x", DataType::Int64)]), options()).await;
            let mut b = place.writer_of(&schema(&[("x", DataType::Utf8)]), options()).await;
            a.feed(&rows(100..200, 1)).await;
            b.feed(&rows(200..300, 2)).await;
            let first = a.commit().await;
            let refused = b.try_commit().await.unwrap_err();
            let Error::Refused(reason) = &refused else { panic!("{refused}") };
            assert!(reason.contains('x') && reason.contains("Nothing was committed"), "{reason}");
            assert_eq!(place.ledger().await.version(), first.version);
            place.is_sound().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_in_between_changes_nothing() {
    for place in Place::both(&Policy::default()).await {
        for i in 0..3 {
            let mut early = place.writer().await;
            early.feed(&rows(i * 300..i * 300 + 300, 0)).await;
            early.commit().await;
        }
        let (mut a, mut b) = (place.writer().await, place.writer().await);
        a.feed(&rows(800..1200, 1)).await;
        b.feed(&rows(1100..1400, 2)).await;
        a.commit().await;
        let report = compact(&mut place.ledger().await, 64 * MIB).await.unwrap();
        assert_eq!((report.version, report.runs_after), (Some(5), 1));
        let second = b.commit().await;
        assert_eq!((second.version, second.rows), (6, accounting(200, 100, 0)));
        assert_eq!(place.rows().await.len(), 1400);
        place.is_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_policy_in_between_is_refused_if_it_matters() {
    let policy = |null_key, partition_by: &[&str]| Policy {
        null_key,
        partition_by: partition_by.iter().map(|text| (*text).to_owned()).collect(),
    };
    let (quarantine, keep) = (NullKey::Quarantine, NullKey::Keep);
    for (asked, policy, passes) in [
        (None, policy(quarantine, &[]), true),
        (None, policy(keep, &[]), false),
        (None, policy(quarantine, &["n"]), false),
        // Asked for by the run itself, it does not follow the policy.
        (Some(quarantine), policy(keep, &[]), true),
        (Some(keep), policy(quarantine, &[]), true),
    ] {
        for place in Place::both(&Policy::default()).await {
            let mut b = place.writer_with(with(|options| options.null_key = asked)).await;
            b.feed(&rows(0..100, 2)).await;
            place.enter(Body::Policy { policy: policy.clone() }).await;
            match b.try_commit().await {
                Ok(committed) => assert!(passes && committed.version == 2, "{asked:?} {policy:?}"),
                Err(Error::Refused(reason)) => {
                    assert!(!passes, "{asked:?} {policy:?}: {reason}");
                    assert!(reason.contains("Run again"), "{reason}");
                    assert_eq!(place.ledger().await.version(), 1);
                }
                Err(error) => panic!("{error}"),
            }
            place.is_sound().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_stops_what_was_staged_below_its_floor_and_nothing_else() {
    for place in Place::both(&Policy::default()).await {
        let (mut below, mut empty) = (place.writer().await, place.writer().await);
        let mut overlapping = place.writer().await;
        below.feed(&rows(1000..1100, 1)).await;
        overlapping.feed(&rows(50..150, 3)).await;
        place.enter(Body::Fence { floor: 1, oldest: 0 }).await;
        let mut at = place.writer().await;
        at.feed(&rows(50..150, 2)).await;
        place.enter(Body::Fence { floor: 2, oldest: 0 }).await;
        assert_eq!(at.commit().await.rows, accounting(100, 0, 0));
        for late in [below, overlapping] {
            too_late(&late.try_commit().await.unwrap_err());
            assert_eq!(place.ledger().await.version(), 3);
        }
        // Who staged nothing has nothing to lose.
        empty.feed(&[]).await;
        assert_eq!(empty.commit().await.version, 4);
        place.is_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vacuum_that_deletes_what_is_being_judged_again_is_the_reason_that_is_told() {
    for place in Place::both(&Policy::default()).await {
        let (mut a, mut b) = (place.writer().await, place.writer().await);
        a.feed(&rows(0..300, 1)).await;
        b.feed(&rows(200..500, 2)).await;
        let fence = Body::Fence { floor: 2, oldest: 0 };
        let staged: Vec<_> = place.store.list("data").await.unwrap();
        a.commit().await;
        place.enter(fence).await;
        for object in staged {
            if !place.ledger().await.state().files().unwrap().contains_key(&object.name) {
                place.store.delete(&object.name).await.unwrap();
            }
        }
        too_late(&b.try_commit().await.unwrap_err());
        place.is_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_kept() {
    let policy = Policy { partition_by: vec!["n".into()], ..Policy::default() };
    for place in Place::both(&policy).await {
        let (mut a, mut b) = (place.writer().await, place.writer().await);
        a.feed(&rows(0..100, 1)).await;
        b.feed(&[rows(90..190, 1), rows(200..300, 2)].concat()).await;
        b.feed(&[rows(300..400, 2), keyless(4, 1)].concat()).await;
        a.commit().await;
        let second = b.commit().await;
        assert_eq!(second.rows.accepted, 290);
        let folder = |name: &str| name.rsplit_once('/').unwrap().0.to_owned();
        let files: Vec<_> = second.files.iter().map(|f| (folder(&f.name), stage(&f.name), f.rows)).collect();
        // The same folder as before, and only the partition with overlap is written anew.
        let rewritten: Vec<_> = files.iter().filter(|(_, stage, _)| *stage == 2).collect();
        assert_eq!(rewritten, [&("data/n=1".to_owned(), 2, 90)]);
        let kept: u64 =
            files.iter().filter(|(f, stage, _)| f == "data/n=2" && *stage == 1).map(|f| f.2).sum();
        assert_eq!(kept, 200);
        place.is_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn own_tokens_that_spilled_to_several_runs() {
    let sink = SinkOptions { row_group_rows: 20_000, ..options().sink };
    let options = with(|options| (options.memory, options.sink) = (4 * MIB, sink));
    for place in Place::both(&Policy::default()).await {
        let (mut a, mut b) = (place.writer().await, place.writer_with(options.clone()).await);
        a.feed(&rows(77_777..77_778, 1)).await;
        let all = rows(0..200_000, 2);
        let chunks: Vec<&[Row]> = all.chunks(20_000).collect();
        b.source(None, &chunks).await;
        a.commit().await;
        let second = b.commit().await;
        assert_eq!(second.rows, accounting(199_999, 1, 0));
        let ingest = place.ingest(2).await;
        let runs: Vec<_> = ingest.runs.iter().map(|run| stage(&run.name)).collect();
        assert!(runs.len() > 2, "{runs:?}");
        assert_eq!(runs.iter().filter(|stage| **stage == 2).count(), 1, "one key lies in one run: {runs:?}");
        let files: Vec<_> = shapes(&ingest.files);
        assert_eq!(files.iter().filter(|file| **file == (1, 20_000)).count(), 9, "{files:?}");
        assert!(files.contains(&(2, 19_999)), "{files:?}");
        place.is_sound().await;

        // The same again, against many keys of every run.
        let (mut a, mut b) = (place.writer().await, place.writer_with(options.clone()).await);
        a.feed(&(200_000..400_000).step_by(3).map(|i| (Some(format!("key-{i}")), 1)).collect::<Vec<_>>())
            .await;
        let all = rows(150_000..400_000, 2);
        let chunks: Vec<&[Row]> = all.chunks(20_000).collect();
        b.source(None, &chunks).await;
        let lost = a.commit().await.rows.accepted;
        assert_eq!(b.commit().await.rows, accounting(200_000 - lost, 50_000 + lost, 0));
        place.is_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_rivals_in_a_row() {
    for place in Place::both(&Policy::default()).await {
        let mut late = place.writer().await;
        for keys in [0..100, 100..200, 200..300, 1000..1100] {
            late.source(Some(u128::from(keys.start)), &[&rows(keys, 9)]).await;
        }
        for (n, keys) in [(1, 50..150), (2, 90..210), (3, 200..205)] {
            let mut rival = place.writer().await;
            rival.source(Some(n), &[&rows(keys, n as i64)]).await;
            rival.commit().await;
        }
        let mut replay = place.writer().await;
        replay.source(Some(1000), &[&rows(1000..1100, 4)]).await;
        replay.commit().await;
        let committed = late.commit().await;
        assert_eq!((committed.version, committed.rows), (5, accounting(50 + 90, 50 + 100 + 10, 100)));
        assert_eq!(place.ingest(5).await.sources[3].replay_of, Some(4));
        assert_eq!(place.keys().await.len(), 400);
        place.is_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rivals_that_commit_at_the_same_moment() {
    for place in Place::both(&Policy::default()).await {
        let mut writers = Vec::new();
        for n in 0..6 {
            let mut writer = place.writer().await;
            writer.feed(&rows(n * 50..n * 50 + 100, n as i64)).await;
            writer.feed(&rows(1000..1100, n as i64)).await;
            writers.push(tokio::spawn(writer.commit()));
        }
        let mut accepted = 0;
        for writer in writers {
            accepted += writer.await.unwrap().rows.accepted;
        }
        assert_eq!((accepted, place.keys().await.len()), (450, 450));
        place.is_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_void_rival_costs_nothing() {
    for place in Place::both(&Policy::default()).await {
        let mut b = place.writer().await;
        b.feed(&rows(0..100, 2)).await;
        // A fence in the far future is void.
        let ledger = place.ledger().await;
        for version in 1..4 {
            let mut entry = ledger.entry(&proposer(), Body::Fence { floor: 1 << 40, oldest: 0 }).unwrap();
            entry.version = version;
            let bytes = Bytes::from(entry.encode().unwrap());
            assert!(matches!(place.store.put_once(&name::manifest(version), bytes).await, Put::Landed));
        }
        let committed = b.commit().await;
        assert_eq!((committed.version, committed.rows), (4, accounting(100, 0, 0)));
        assert_eq!(shapes(&committed.files), [(1, 100)]);
        // Verify tells of the void entry, and takes the two that do not fit their place for what they are.
        let report = verify(&place.ledger().await, &VerifyOptions::default()).await.unwrap();
        assert_eq!(
            (report.notes.len(), report.problems.len(), report.rows),
            (1, 2, 100),
            "{:?}",
            report.problems
        );
    }
}
