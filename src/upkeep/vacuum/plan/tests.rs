//! The plan against a plain oracle: the set of names that each version holds.

use super::*;
use crate::lease::{Kind, Lease};
use crate::ledger::entry::{Compact, DataFile, FORMAT, Ingest, QuarantineFile, RunRef};
use crate::token::TokenSum;
use proptest::prelude::*;

const SESSION: &str = "0123456789abcdef0123456789abcdef";

fn file(name: &str) -> DataFile {
    DataFile {
        name: name.into(),
        rows: 0,
        bytes: 0,
        check: String::new(),
        keyless: 0,
        tokens: TokenSum::default(),
        origin: vec![],
        key_range: vec![],
    }
}

fn run(name: &str) -> RunRef {
    let tokens = TokenSum::default();
    RunRef { name: name.into(), bytes: 0, min: 0, max: 0, tokens, check: String::new() }
}

fn entry(version: u64, body: Body) -> Entry {
    let (time, session, writer) = Default::default();
    Entry { format: FORMAT, version, id: 0, prev: 0, time, session, writer, body }
}

fn now() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + Duration::days(1000)
}

fn listed(name: &str, age: i64) -> Listed {
    Listed { name: name.into(), size: 1, modified: now() - Duration::seconds(age), etag: None }
}

/// A name in one of the three folders of staged objects.
fn staged(stage: u64, number: u64) -> String {
    let (folder, extension) =
        [("data", "parquet"), ("_dedupe/tokens", "run"), ("_dedupe/quarantine", "ndjson")]
            [number as usize % 3];
    format!("{folder}/{stage:020}-{SESSION}-{number}.{extension}")
}

/// A random history, and the names that each version holds.
struct World {
    history: History,
    held: Vec<BTreeSet<String>>,
    everything: Vec<String>,
}

#[derive(Debug, Clone)]
enum Step {
    /// So many objects, staged so many versions ago.
    Ingest(u8, u8),
    /// Those of the live objects whose bit is set become one.
    Compact(u64, u8),
    /// Objects that no version will name.
    Staged(u8, u8),
    Other,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4u8, 0..4u8).prop_map(|(count, back)| Step::Ingest(count, back)),
        2 => (any::<u64>(), 0..3u8).prop_map(|(which, back)| Step::Compact(which, back)),
        2 => (1..3u8, 0..4u8).prop_map(|(count, back)| Step::Staged(count, back)),
        1 => Just(Step::Other),
    ]
}

impl World {
    fn of(steps: &[Step]) -> Self {
        let mut world = Self { history: History::default(), held: vec![BTreeSet::new()], everything: vec![] };
        let mut number = 0;
        for step in steps {
            let version = world.held.len() as u64;
            let mut live = world.held.last().unwrap().clone();
            let mut new = |back: &u8| {
                number += 1;
                staged(version.saturating_sub((*back).into()), number)
            };
            match step {
                Step::Ingest(count, back) => {
                    let names: Vec<String> = (0..*count).map(|_| new(back)).collect();
                    let of = |sort| names.iter().filter(move |name| Sort::of(name) == Some(sort));
                    let ingest = Ingest {
                        files: of(Sort::Data).map(|name| file(name)).collect(),
                        runs: of(Sort::Tokens).map(|name| run(name)).collect(),
                        quarantine: of(Sort::Quarantine)
                            .map(|name| QuarantineFile { name: name.clone(), rows: 0, bytes: 0 })
                            .collect(),
                        ..Default::default()
                    };
                    world.history.note(&entry(version, Body::Ingest(Box::new(ingest))));
                    live.extend(names.iter().cloned());
                    world.everything.extend(names);
                }
                Step::Compact(which, back) => {
                    let chosen: Vec<String> = (live.iter().enumerate())
                        .filter(|(n, name)| {
                            which >> (n % 64) & 1 == 1 && Sort::of(name) != Some(Sort::Quarantine)
                        })
                        .map(|(_, name)| name.clone())
                        .collect();
                    let of = |sort| chosen.iter().filter(move |name| Sort::of(name) == Some(sort)).cloned();
                    let mut compact = Compact {
                        runs_removed: of(Sort::Tokens).collect(),
                        files_removed: of(Sort::Data).collect(),
                        ..Default::default()
                    };
                    let name = new(back);
                    match Sort::of(&name) {
                        Some(Sort::Data) => compact.files_added.push(file(&name)),
                        _ => compact.runs_added.push(run(&name)),
                    }
                    world.history.note(&entry(version, Body::Compact(compact)));
                    chosen.iter().for_each(|name| {
                        live.remove(name);
                    });
                    live.insert(name.clone());
                    world.everything.push(name);
                }
                Step::Staged(count, back) => {
                    let names: Vec<String> = (0..*count).map(|_| new(back)).collect();
                    world.everything.extend(names);
                    continue;
                }
                Step::Other => world.history.note(&entry(version, Body::Fence { floor: 0, oldest: 0 })),
            }
            world.held.push(live);
        }
        world
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn exactly_what_no_readable_version_holds_and_no_writer_can_name_is_garbage(
        steps in prop::collection::vec(step(), 0..40),
        floor in any::<prop::sample::Index>(),
        keep in 1..6u64,
        ages in prop::collection::vec(0..200i64, 1..7),
        grace in prop::sample::select(vec![0, 1, 100, 1000]),
    ) {
        let world = World::of(&steps);
        let floor = floor.index(world.held.len() + 2) as u64;
        let tip = world.held.len() as u64 - 1;
        let bounds = Bounds { floor, oldest: floor.min(tip + 1).saturating_sub(keep) };
        let age = |n: usize| ages[n % ages.len()];
        let objects: Vec<Listed> =
            world.everything.iter().enumerate().map(|(n, name)| listed(name, age(n))).collect();
        let scene = Scene {
            objects: &objects, leases: &[], checkpoints: &BTreeSet::new(), newest: world.held.len() as u64 - 1,
            now: now(), grace: Duration::seconds(grace),
        };
        let plan = scene.plan(&world.history, bounds);
        let readable = world.held.iter().skip(bounds.oldest as usize);
        let needed: BTreeSet<&String> = readable.flatten().collect();
        let (mut garbage, mut young) = (BTreeSet::new(), BTreeSet::new());
        for (n, name) in world.everything.iter().enumerate() {
            if StagedName::parse(name).unwrap().stage < floor && !needed.contains(name) {
                if age(n) < grace { &mut young } else { &mut garbage }.insert(name.as_str());
            }
        }
        prop_assert_eq!(plan.names(), garbage);
        prop_assert_eq!(plan.young.iter().map(|(_, o)| o.name.as_str()).collect::<BTreeSet<_>>(), young);
        prop_assert!(plan.foreign.is_empty());
        // What is live is never garbage, whatever the bounds.
        let live = world.held.last().unwrap();
        prop_assert!(plan.garbage.iter().all(|(_, object)| !live.contains(&object.name)));
        // A fence that is no higher than it must be has the same plan, is valid, and nothing lower has.
        let needed = plan.needs(&world.history);
        prop_assert_eq!(scene.plan(&world.history, needed).garbage, plan.garbage.clone());
        prop_assert!(needed.floor <= bounds.floor && needed.oldest <= bounds.oldest, "{needed:?} {bounds:?}");
        prop_assert!(needed.oldest == 0 || needed.oldest < needed.floor);
        if needed.oldest > 0 {
            let lower = Bounds { oldest: needed.oldest - 1, ..needed };
            prop_assert!(scene.plan(&world.history, lower).garbage.len() < plan.garbage.len());
        }
        // And of what is deleted, a later vacuum with higher bounds would delete the same.
        let higher = scene.plan(&world.history, Bounds { floor: floor + 1, oldest: bounds.oldest + 1 });
        prop_assert!(higher.names().is_superset(&plan.names()));
    }
}

fn lease_of(session: &str, kind: Kind, stage: u64, age: i64) -> Found {
    let lease = Lease::new(session, "host:1", kind, stage);
    Found { object: listed(&lease.object(), age), lease: Some(lease) }
}

fn settled_at(manifest_ages: &[i64], grace: i64, present: Bounds) -> (u64, u64) {
    let manifests = (0..).zip(manifest_ages).map(|(v, age)| (v, now() - Duration::seconds(*age))).collect();
    let none = BTreeSet::new();
    let grace = Duration::seconds(grace);
    let scene = Scene { objects: &[], leases: &[], checkpoints: &none, newest: 0, now: now(), grace };
    let bounds = settled(present, manifest_ages.len() as u64, &manifests, &scene);
    (bounds.floor, bounds.oldest)
}

fn bounds(floor: u64, oldest: u64) -> Bounds {
    Bounds { floor, oldest }
}

#[test]
fn whoever_began_within_the_grace_time_is_spared() {
    // Versions 0 to 4, the last two of which are young: who began before 3 was written had stage 3, and reads version 2.
    let ages = [900, 800, 700, 50, 10];
    assert_eq!(settled_at(&ages, 100, bounds(0, 0)), (3, 2));
    assert_eq!(settled_at(&ages, 10_000, bounds(0, 0)), (0, 0));
    assert_eq!(settled_at(&[], 100, bounds(0, 0)), (1, 0));
    // At rest: even those at the present stage have had their time. The newest version stays readable.
    assert_eq!(settled_at(&ages, 0, bounds(0, 0)), (6, 4));
    assert_eq!(settled_at(&ages, 5, bounds(4, 1)), (6, 4));
    // Bounds never fall, and what a fence has just raised is not raised further while the fence is young.
    assert_eq!(settled_at(&ages, 100, bounds(5, 1)), (5, 3));
    assert_eq!(settled_at(&ages, 800, bounds(5, 4)), (5, 4));
    // A clock that was set back makes old versions young, and an older one behind them does not change that.
    assert_eq!(settled_at(&[900, -500, 700, 600], 100, bounds(0, 0)), (1, 0));
}

#[test]
fn a_version_that_no_listing_shows_is_young() {
    let manifests = BTreeMap::from([(0, now() - Duration::days(9)), (2, now() - Duration::days(9))]);
    let none = BTreeSet::new();
    let scene = Scene {
        objects: &[],
        leases: &[],
        checkpoints: &none,
        newest: 0,
        now: now(),
        grace: Duration::hours(1),
    };
    assert_eq!(settled(bounds(0, 0), 3, &manifests, &scene), bounds(1, 0));
}

#[test]
fn live_sessions_below_a_floor_are_found() {
    let session = |digit: &str| digit.repeat(32);
    let leases = [
        lease_of(&session("a"), Kind::Ingest, 2, 30),
        lease_of(&session("b"), Kind::Compact, 1, 120),
        lease_of(&session("c"), Kind::Ingest, 0, 121),
        lease_of(&session("d"), Kind::Vacuum, 0, 1),
        lease_of(&session("e"), Kind::Ingest, 4, 1),
        // Nobody understands this one: it may need anything.
        Found { lease: None, ..lease_of(&session("f"), Kind::Ingest, 5, 1) },
    ];
    let below =
        |floor| sessions_below(&leases, now(), floor).into_iter().map(|(stage, _)| stage).collect::<Vec<_>>();
    assert_eq!(below(0), [0u64; 0]);
    assert_eq!(below(1), [0]);
    assert_eq!(below(4), [2, 1, 0]);
    assert_eq!(below(5), [2, 1, 4, 0]);
    assert_eq!(bounds(9, 8).sparing(4).sparing(6), bounds(4, 3));
    assert_eq!(bounds(9, 2).sparing(4), bounds(4, 2));
    assert_eq!(bounds(9, 2).sparing(0), bounds(0, 0));
}

#[test]
fn names_that_are_not_ours_are_reported_and_never_deleted() {
    let ours = [
        (staged(0, 0), Sort::Data),
        (format!("data/day=1/{:020}-{SESSION}-7.parquet", 0), Sort::Data),
        (staged(0, 1), Sort::Tokens),
        (staged(0, 2), Sort::Quarantine),
        (format!("_dedupe/checkpoint/{:020}-{SESSION}.json.zst", 0), Sort::Checkpoint),
        (format!("_dedupe/parts/{:020}-{SESSION}.index", 0), Sort::Checkpoint),
        (format!("_dedupe/parts/{:020}-{SESSION}.list.zst", 0), Sort::Checkpoint),
        (format!("_dedupe/session/{SESSION}.json"), Sort::Lease),
        (format!("_dedupe/probe-{SESSION}"), Sort::Probe),
        (format!("data/.dedupe-tmp-{SESSION}"), Sort::Leftover),
        (format!("_dedupe/tokens/.dedupe-tmp-{SESSION}"), Sort::Leftover),
    ];
    let foreign = [
        "data/README".to_owned(),
        "data/part-0.parquet".to_owned(),
        format!("data/{:020}-{SESSION}-0.run", 0),
        format!("_dedupe/tokens/{:020}-{SESSION}-0.parquet", 0),
        format!("data/{:020}-{SESSION}.parquet", 0),
        "_dedupe/session/someone.json".to_owned(),
        "_dedupe/checkpoint/00000000000000000000-x.json.zst".to_owned(),
        format!("_dedupe/checkpoint/{:020}-{SESSION}.index", 0),
        format!("_dedupe/parts/{:020}-{SESSION}.json.zst", 0),
        "_dedupe/notes.txt".to_owned(),
        format!("database/{:020}-{SESSION}-0.parquet", 0),
    ];
    let names = ours.iter().map(|(name, _)| name).chain(&foreign);
    let objects: Vec<Listed> = names.map(|name| listed(name, 1 << 30)).collect();
    let none = BTreeSet::new();
    let scene = Scene {
        objects: &objects,
        leases: &[],
        checkpoints: &none,
        newest: 9,
        now: now(),
        grace: Duration::zero(),
    };
    let plan = scene.plan(&History::default(), bounds(5, 4));
    let found: Vec<_> = plan.garbage.into_iter().map(|(sort, object)| (object.name, sort)).collect();
    assert_eq!(found, ours);
    assert_eq!(plan.foreign, foreign);
}

#[test]
fn leases_and_half_written_files_stay_while_somebody_may_be_alive() {
    let (old, fresh) =
        (lease_of(&"a".repeat(32), Kind::Ingest, 1, 121), lease_of(&"b".repeat(32), Kind::Ingest, 1, 119));
    let half = listed("data/.dedupe-tmp-x", 3600);
    let ancient = listed("data/.dedupe-tmp-y", 86_400);
    let none = BTreeSet::new();
    let garbage = |leases: &[Found], grace| {
        let mut objects: Vec<Listed> = leases.iter().map(|found| found.object.clone()).collect();
        objects.extend([half.clone(), ancient.clone()]);
        let scene = Scene { objects: &objects, leases, checkpoints: &none, newest: 9, now: now(), grace };
        scene
            .plan(&History::default(), bounds(5, 4))
            .names()
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let dead = [old.object.name.clone(), half.name.clone(), ancient.name.clone()];
    assert_eq!(garbage(std::slice::from_ref(&old), Duration::zero()), dead);
    assert_eq!(
        garbage(&[old.clone(), fresh], Duration::zero()),
        [old.object.name.clone(), ancient.name.clone()]
    );
    assert_eq!(garbage(std::slice::from_ref(&old), Duration::seconds(2)), dead[1..]);
    assert_eq!(garbage(std::slice::from_ref(&old), Duration::hours(2)), [ancient.name.as_str()]);
}

#[test]
fn checkpoints_go_but_for_those_that_are_to_stay_and_those_of_later_versions() {
    let name =
        |version: u64, digit: &str| format!("_dedupe/checkpoint/{version:020}-{}.json.zst", digit.repeat(32));
    let part = |version: u64, digit: &str| format!("_dedupe/parts/{version:020}-{}.index", digit.repeat(32));
    let objects = [
        name(32, "a"),
        name(64, "b"),
        name(64, "c"),
        name(96, "d"),
        name(128, "e"),
        part(32, "1"),
        part(32, "2"),
        part(128, "3"),
    ];
    let objects: Vec<Listed> = objects.iter().map(|name| listed(name, 9)).collect();
    let keep = BTreeSet::from([name(64, "c"), name(96, "d"), part(32, "2")]);
    let scene = Scene {
        objects: &objects,
        leases: &[],
        checkpoints: &keep,
        newest: 100,
        now: now(),
        grace: Duration::zero(),
    };
    let plan = scene.plan(&History::default(), bounds(0, 0));
    let gone = [name(32, "a"), name(64, "b"), part(32, "1")];
    assert_eq!(plan.names(), gone.iter().map(String::as_str).collect());
}

#[test]
fn a_live_file_is_known_by_whatever_name_its_folder_is_listed() {
    let file_in = |folder: &str, number| format!("data/{folder}/{:020}-{SESSION}-{number}.parquet", 0);
    let mut history = History::default();
    let files = vec![file(&file_in("country=de", 0)), file(&file_in("city=St.", 1))];
    history.note(&entry(1, Body::Ingest(Box::new(Ingest { files, ..Ingest::default() }))));
    let objects: Vec<Listed> = [file_in("country=DE", 0), file_in("city=St", 1), file_in("country=DE", 2)]
        .iter()
        .map(|name| listed(name, 1000))
        .collect();
    let scene = Scene {
        objects: &objects,
        leases: &[],
        checkpoints: &BTreeSet::new(),
        newest: 1,
        now: now(),
        grace: Duration::zero(),
    };
    let plan = scene.plan(&history, Bounds { floor: 5, oldest: 1 });
    assert_eq!(plan.names(), BTreeSet::from([file_in("country=DE", 2).as_str()]));
}
