//! The clouds' real clients, whose answers are lost, wrong and late in exact sequences: what is said of a commit is
//! what became of it. The notation of the sequences stands in `store/scripted/script.rs`, the table of them in
//! `docs/reliability.md`.

use super::*;
use crate::ledger::entry::{Ingest, SourceUse};
use crate::store::scripted::{Answer, CLOUDS, Effect, Fault, Rates, Scripted};
use crate::token::{TokenHash, TokenKey, TokenSpec};
use arrow_schema::{DataType, Field, Schema};
use std::collections::{BTreeMap, BTreeSet};

/// How a proposal is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Committed,
    Lost,
    Unknown,
}
use End::{Committed, Lost, Unknown};

pub(super) fn proposer(who: u8) -> Proposer {
    Proposer { session: format!("{who:032x}"), writer: format!("writer {who}") }
}

fn identity() -> TableIdentity {
    let schema = Schema::new(vec![Field::new("id", DataType::Utf8, true)]);
    let key = TokenKey::random().unwrap();
    TableIdentity::new(TokenSpec::new(&["id".into()], &schema, TokenHash::SipHash24, key).unwrap()).unwrap()
}

pub(super) async fn created(store: &Store) -> Ledger {
    Ledger::create(store.clone(), identity(), Policy::default(), &proposer(0)).await.unwrap()
}

/// An entry that shows in the state: one source, without rows.
pub(super) fn commit(ledger: &Ledger, who: u8, source: u128) -> Entry {
    let sources = vec![SourceUse { id: Some(source), ..Default::default() }];
    let (policy, total) = (ledger.state().policy_version, ledger.state().total);
    let body = Ingest { policy, sources, total, ..Default::default() };
    ledger.entry(&proposer(who), Body::Ingest(Box::new(body))).unwrap()
}

/// Every entry of the ledger, read by somebody who has seen nothing yet. None may be void.
async fn entries(store: &Store) -> Vec<Entry> {
    let mut reader =
        Ledger { state: State::default(), ..Ledger::open(store.clone()).await.unwrap().unwrap() };
    let entries = reader.refresh().await.unwrap();
    assert_eq!(entries.len() as u64, reader.state.entries, "a void entry");
    entries
}

fn sources(entries: &[Entry]) -> Vec<u128> {
    let mut sources: Vec<u128> =
        entries.iter().filter_map(|entry| entry.ingest()?.sources.first()?.id).collect();
    sources.sort_unstable();
    sources
}

/// Proposes an entry for version 1 while its requests meet `script`.
async fn play(cloud: &'static str, script: &str, end: End) {
    const OURS: u128 = 7;
    const THEIRS: u128 = 8;
    let server = Scripted::new(cloud);
    let store = server.store();
    let mut ledger = created(&store).await;
    let object = name::manifest(1);
    let rival = commit(&ledger, 2, THEIRS);
    let entry = commit(&ledger, 1, OURS);
    let ours = Bytes::from(entry.encode().unwrap());
    server.play(&object, script, rival.encode().unwrap().into());

    let proposal = ledger.propose(&entry).await;
    let told = format!("{cloud} {script}: {proposal:?}\n{:#?}", server.log());
    assert_eq!(server.complaints(), Vec::<String>::new(), "{told}");
    // R2: the same bytes, however often.
    assert!(server.bodies().iter().all(|body| *body == ours), "{told}");
    match (end, proposal) {
        (Committed, Ok(Proposal::Committed)) => {
            assert_eq!(server.object(&object).as_ref(), Some(&ours), "{told}");
            assert_eq!(ledger.version(), 1, "{told}");
        }
        (Lost, Ok(Proposal::Lost(Some(winner)))) => {
            assert_eq!((*winner).clone(), rival, "{told}");
            assert_eq!(server.object(&object), Some(rival.encode().unwrap().into()), "{told}");
            assert_eq!(ledger.version(), 1, "{told}");
        }
        (Unknown, Err(Error::Unknown { version: 1, reason })) => {
            assert!(!reason.is_empty(), "{told}");
            assert_eq!(ledger.version(), 0, "what is not known is not applied: {told}");
        }
        _ => panic!("{end:?} was right: {told}"),
    }

    // Whatever is still under way lands; then the same run once more, as people do.
    server.heal();
    let again = &mut Ledger::open(store.clone()).await.unwrap().unwrap();
    if end == Committed {
        assert!(again.state().source(OURS).unwrap().is_some(), "{told}");
    }
    let mut tries = 0;
    while again.state().source(OURS).unwrap().is_none() {
        let entry = commit(again, 3, OURS);
        assert!(!matches!(again.propose(&entry).await.unwrap(), Proposal::Void(_)), "{told}");
        tries += 1;
        assert!(tries < 5, "{told}");
    }
    let entries = entries(&store).await;
    let wanted = if sources(&entries).contains(&THEIRS) { vec![OURS, THEIRS] } else { vec![OURS] };
    assert_eq!(sources(&entries), wanted, "{told}");
    assert_eq!(wanted.len() == 2, end == Lost, "{told}");
    ledger.refresh().await.unwrap();
    assert_eq!(ledger.state(), again.state(), "{told}");
}

/// One test a client and sequence.
macro_rules! sequences {
    ($($name:ident: $script:literal => $end:ident;)*) => {
        $(mod $name {
            #[tokio::test(start_paused = true)]
            async fn s3() {
                super::play("s3", $script, super::$end).await;
            }

            #[tokio::test(start_paused = true)]
            async fn gcs() {
                super::play("gs", $script, super::$end).await;
            }

            #[tokio::test(start_paused = true)]
            async fn azure() {
                super::play("az", $script, super::$end).await;
            }
        })*

        const SEQUENCES: &[(&str, &str, End)] = &[$((stringify!($name), $script, $end)),*];
    };
}

sequences! {
    // Plain answers.
    nothing_goes_wrong: "P" => Committed;
    a_rival_was_first: "+rival P G" => Lost;

    // Carried out, and the answer says otherwise.
    stored_then_500: "P500! G" => Committed;
    stored_then_502: "P502! G" => Committed;
    stored_then_503: "P503! G" => Committed;
    stored_then_429: "P429! G" => Committed;
    stored_then_408: "P408! G" => Committed;
    stored_then_400: "P400! G" => Committed;
    stored_then_403: "P403! G" => Committed;
    stored_then_timed_out: "Ptime! G" => Committed;
    stored_then_closed: "Pcut! G" => Committed;
    stored_then_reset: "Preset! G" => Committed;
    stored_then_answered_without_a_tag: "Pbare! G" => Committed;
    own_retried_put_412: "P412! G" => Committed;
    own_retried_put_409: "P409! G" => Committed;

    // Not carried out, and the answer says so or says nothing.
    failed_500: "P500 G P" => Committed;
    failed_503: "P503 G P" => Committed;
    throttled: "P429 G P429 G P503 G P" => Committed;
    forbidden_for_a_moment: "P403 G P" => Committed;
    timed_out: "Ptime G P" => Committed;
    closed: "Pcut G P" => Committed;
    no_connection: "Pconn Gconnx6 Pconn G P" => Committed;
    conflict_and_nothing_there: "P409 G P" => Committed;
    taken_and_nothing_there: "P412 G P" => Committed;
    every_refusal_in_turn: "P409 G P412 G P503 G P500 G P429 G Ptime G Pcut G Preset G P" => Committed;

    // Carried out after its own retry, or just before it.
    lands_before_the_look: "Ptime~ +late G" => Committed;
    lands_before_the_retry: "Ptime~ G +late P G" => Committed;
    lands_behind_the_retry: "P500~ G P500~ G +late P G" => Committed;
    lands_behind_the_commit: "Pcut~ G P" => Committed;
    late_and_its_retry_lost_too: "Ptime~ G +late Ptime! G" => Committed;
    late_and_taken: "P409~ G +late P409 G" => Committed;

    // The look at what stands there fails too.
    stored_and_the_look_fails: "P500! G500x3 G" => Committed;
    stored_and_the_look_times_out: "Ptime! Gtime G" => Committed;
    stored_and_the_look_is_cut_in_the_middle: "Pcut! Ghalf G" => Committed;
    stored_and_the_look_ends_early: "Pcut! Gshort P G" => Committed;
    stored_and_somebody_answers_with_a_page: "P500! Ghtml P G" => Committed;
    stored_and_every_look_of_a_turn_fails: "P503! G503x6 P G" => Committed;
    stored_and_looking_is_forbidden_for_a_moment: "Ptime! G403 P G" => Committed;
    not_stored_and_every_look_of_a_turn_fails: "P503 G503x6 P" => Committed;
    not_stored_and_two_turns_are_lost: "Ptime Gresetx6 Pcut G429x6 P" => Committed;

    // It fails for minutes, and recovers.
    stored_and_no_look_for_a_minute_and_a_half: "Ptime! G503@90s" => Committed;
    stored_and_no_answer_at_all_for_a_minute_and_a_half: "Ptime! Ptime@90s Gtime@90s" => Committed;
    not_stored_and_down_for_a_minute_and_a_half: "P503@90s G503@90s" => Committed;
    throttled_for_a_minute: "P429@60s" => Committed;
    conflicts_for_a_minute: "P409@60s" => Committed;

    // It fails for minutes, and does not.
    stored_and_never_read_back: "P500! G503*" => Unknown;
    stored_and_looking_is_forbidden: "Ptime! G403*" => Unknown;
    stored_and_only_failures_of_others: "Pcut! P412* G502*" => Unknown;
    stored_and_only_pages_of_others: "P500! Ghtml*" => Unknown;
    not_stored_and_never_read_back: "P500* G500*" => Unknown;
    down_altogether: "Pconn* Gconn*" => Unknown;
    silent_altogether: "Ptime* Gtime*" => Unknown;
    late_for_ever: "Ptime~ P503* G" => Unknown;
    conflicts_without_end: "P409*" => Unknown;
    taken_and_absent_without_end: "P412*" => Unknown;
    throttled_without_end: "P429*" => Unknown;

    // And a rival besides.
    a_rival_in_front_of_the_look: "Ptime +rival G" => Lost;
    a_rival_in_front_of_the_retry: "P500 G +rival P G" => Lost;
    a_rival_and_a_conflict: "P409 +rival G" => Lost;
    a_rival_while_nothing_can_be_read: "P503 G503x6 +rival P G" => Lost;
    a_rival_in_front_of_a_late_put: "Ptime~ +rival G" => Lost;
    a_late_put_in_front_of_a_rival: "Ptime~ +late +rival G" => Committed;
    a_rival_behind_our_lost_answer: "Pcut! +rival G" => Committed;
    a_rival_seen_at_last: "P409 +rival G503x6 P409 Gtime Ghalf G" => Lost;
}

#[test]
fn the_documentation_has_every_sequence() {
    let text = include_str!("../../../docs/reliability.md");
    for (name, script, end) in SEQUENCES {
        let row =
            format!("| {} | `{script}` | {} |", name.replace('_', " "), format!("{end:?}").to_lowercase());
        assert!(text.contains(&row), "docs/reliability.md lacks\n{row}");
    }
}

/// Commits `sources`, one entry each, against whoever else does, and against every answer. What was said of each.
async fn commit_all(store: &Store, who: u8, sources: std::ops::Range<u128>, patience: Patience) -> Vec<End> {
    let mut said = Vec::new();
    // Opening is reading: what cannot be read is asked for again.
    let open = async || loop {
        match Ledger::open(store.clone()).await {
            Ok(Some(mut ledger)) => {
                ledger.set_patience(patience);
                break ledger;
            }
            Ok(None) => panic!("the table is gone"),
            Err(_) => {}
        }
    };
    let mut ledger = open().await;
    for source in sources {
        let mut unknown = false;
        loop {
            let entry = commit(&ledger, who, source);
            match ledger.propose(&entry).await {
                Ok(Proposal::Committed) => {
                    said.push(Committed);
                    break;
                }
                Ok(Proposal::Lost(winner)) => {
                    let winner = winner.expect("a rival's entry is valid");
                    // Who was never in doubt never meets an entry of their own.
                    let ours = winner.session == entry.session;
                    assert!(!ours || said.contains(&Unknown), "lost against ourselves");
                    said.push(Lost);
                }
                // The run whose outcome was unknown had committed it.
                Ok(Proposal::Void(Void::SourceCommitted(_))) if unknown => break,
                Ok(Proposal::Void(void)) => panic!("{void}"),
                Err(Error::Unknown { .. }) => {
                    said.push(Unknown);
                    unknown = true;
                    ledger = open().await;
                }
                Err(error) => panic!("neither done nor unknown: {error}"),
            }
        }
    }
    said
}

/// One history: two writers, two commits each, on a store whose faults are drawn from `seed`.
async fn history(seed: u64) -> (Vec<End>, BTreeMap<(char, Fault), u64>, Vec<String>) {
    let cloud = CLOUDS[(seed % 3) as usize];
    let server = Scripted::new(cloud);
    let store = server.store();
    created(&store).await;
    let rate = [25, 50, 75, 90][(seed / 3 % 4) as usize];
    let requests = [8, 20, 60, 200][(seed / 12 % 4) as usize];
    server.misbehave("_dedupe/ledger/", seed, Rates { put: rate, get: rate, requests });
    let attempts = if seed.is_multiple_of(2) { 3 } else { 200 };
    let patience = Patience { attempts, ..Patience::default() };
    let (one, two) =
        tokio::join!(commit_all(&store, 1, 10..12, patience), commit_all(&store, 2, 20..22, patience));
    server.heal();
    assert_eq!(server.complaints(), Vec::<String>::new(), "seed {seed} {cloud}: {:#?}", server.log());
    let entries = entries(&store).await;
    assert_eq!(sources(&entries), [10, 11, 20, 21], "seed {seed} {cloud}: {:#?}", server.log());
    let ids: BTreeSet<u128> = entries.iter().map(|entry| entry.id).collect();
    assert_eq!(ids.len(), entries.len(), "seed {seed}: one entry stands twice");
    ([one, two].concat(), server.fired(), server.log())
}

/// `DEDUPE_SEED=17 cargo test --lib any_sequence_of_faults` plays one history again.
#[tokio::test(start_paused = true)]
async fn any_sequence_of_faults_leaves_every_commit_once() {
    let seeds = match std::env::var("DEDUPE_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..2400,
    };
    let (mut ends, mut fired) = (Vec::new(), BTreeMap::<_, u64>::new());
    let alone = seeds.end - seeds.start == 1;
    for seed in seeds {
        let (said, faults, log) = history(seed).await;
        if alone {
            println!("{said:?}\n{log:#?}");
        }
        ends.extend(said);
        for (fault, times) in faults {
            *fired.entry(fault).or_default() += times;
        }
    }
    if alone {
        return;
    }
    for end in [Committed, Lost, Unknown] {
        assert!(ends.iter().filter(|e| **e == end).count() > 100, "hardly ever {end:?}");
    }
    for effect in [Effect::No, Effect::Yes, Effect::Late] {
        for answer in
            [Answer::Status(500), Answer::Status(409), Answer::Status(412), Answer::TimeOut, Answer::Cut]
        {
            let times = fired.get(&('P', Fault(answer, effect))).copied().unwrap_or(0);
            assert!(times > 50, "{answer:?} {effect:?} fired {times} times");
        }
    }
    for answer in [Answer::HalfBody, Answer::ShortBody, Answer::Page, Answer::TimeOut, Answer::Status(503)] {
        let times = fired.get(&('G', Fault(answer, Effect::No))).copied().unwrap_or(0);
        assert!(times > 50, "{answer:?} fired {times} times");
    }
}

#[tokio::test(start_paused = true)]
async fn one_seed_is_one_history() {
    // The clients' own pauses are random, so two writers may meet in another order; one writer may not.
    for seed in 0..30 {
        let mut logs = Vec::new();
        for _ in 0..2 {
            let server = Scripted::new(CLOUDS[(seed % 3) as usize]);
            let store = server.store();
            created(&store).await;
            server.misbehave("_dedupe/ledger/", seed, Rates { put: 60, get: 60, requests: 100 });
            commit_all(&store, 1, 10..13, Patience { attempts: 5, ..Patience::default() }).await;
            logs.push(server.log());
        }
        assert_eq!(logs[0], logs[1], "seed {seed}");
    }
}
