//! The commit protocol as a world of actors over one bucket: writers, compactors and a vacuum that follow rules R1
//! to R6, a store that answers put_once as badly as stores do, crashes, and bugs that can be planted.

pub mod ledger;

use dedupe::ledger::state::Void;
use ledger::{Commit, Folded, Id, Kind, Ledger, Object, Proposal, Rule, Tokens, check, sum_of, union};
use stateright::{Model, Property};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A mistake in how one of the rules is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// R1: after a lost race the tokens are not judged again, the sums are made to fit.
    NoRefilter,
    /// R1: after a lost race the entry is sent as it was, for the next version.
    NoRefilterNorSums,
    /// R2: after "absent" new bytes are sent to the same version.
    OtherBytes,
    /// R2, R3: after a time-out the writer goes on to the tip, without looking who it was and without any check.
    NextVersion,
    /// R3: the fence is not looked at after a lost race.
    SkipFence,
    /// R3: the inputs of a compaction are not looked at after a lost race.
    SkipLiveInputs,
    /// R3: the batch is not looked up after a lost race.
    SkipBatch,
    /// R4: whoever is told "exists" deletes his own objects and starts again.
    ConflictCleansUp,
    /// R4: whoever reads "absent" after a time-out deletes his own objects and starts again.
    AbsentCleansUp,
    /// R5: "absent" after a time-out is reported as done.
    AbsentMeansDone,
    /// R5: "absent" after a time-out is reported as failed.
    AbsentMeansFailed,
    /// R5: "exists" is taken for a rival without reading.
    NoReadBack,
    /// R5: own bytes in the ledger are reported as done even where the entry is void.
    VoidMeansDone,
    /// Vacuum deletes what is not live now, without a fence.
    VacuumByAge,
    /// Vacuum commits its fence, and judges by the state it had before.
    VacuumFromHint,
    /// Vacuum spares only what is live, and not what the versions hold that its fence keeps readable.
    VacuumForgetsReaders,
    /// The store ignores the condition of a put.
    LyingStore,
}

/// By what a writer's input is recognised when it comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    Tokens,
    Batch,
    Source,
}

/// A writer and the tokens of its batch. `inline`: they stand in the manifest instead of in a run.
#[derive(Debug, Clone, Copy)]
pub struct Writer {
    pub tokens: Tokens,
    pub identity: Identity,
    pub inline: bool,
}

/// How large the world is and what is wrong with it.
#[derive(Debug, Clone)]
pub struct World {
    pub writers: Vec<Writer>,
    /// Compactors; each compacts either everything or, in a world with `runs_only`, also only the runs.
    pub compactors: u8,
    pub runs_only: bool,
    /// How many compactions, vacuums, crashes and faults may happen.
    pub budget: Budget,
    /// Compactors and the vacuum crash too.
    pub all_crash: bool,
    pub bugs: Vec<Bug>,
    /// A rule taken out of `State`.
    pub without: Option<Rule>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Budget {
    pub compactions: u8,
    pub vacuums: u8,
    pub crashes: u8,
    pub faults: u8,
}

/// One moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Moment {
    ledger: Ledger,
    stored: Vec<Stored>,
    /// Writers, then compactors, then the vacuum.
    actors: Vec<Actor>,
    /// Puts that were given up and may still land.
    late: Vec<Arc<Proposal>>,
    left: Budget,
    vacuum_deleted: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Stored {
    object: Object,
    file: bool,
    run: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Actor {
    phase: Phase,
    serial: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    /// About to send these bytes.
    Hold(Arc<Proposal>),
    /// Sent, without a clear answer. `exists`: the answer was "exists" (kept only where a bug looks at it).
    Wait {
        sent: Arc<Proposal>,
        exists: bool,
    },
    /// Deletes what the state after its fence does not name.
    Delete(Snapshot),
    Done,
    Failed(Id),
}

/// What a vacuum judges by; a function of the ledger and the version.
#[derive(Debug, Clone)]
struct Snapshot {
    version: u8,
    folded: Arc<Folded>,
}

impl PartialEq for Snapshot {
    fn eq(&self, other: &Self) -> bool {
        self.version == other.version
    }
}

impl Eq for Snapshot {}

impl Hash for Snapshot {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.version.hash(hasher);
    }
}

/// What becomes of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It lands and the answer arrives.
    Landed,
    /// Somebody is there.
    Taken,
    /// It lands, the answer is lost.
    AckLost,
    /// It lands, the answer is "exists".
    OwnExists,
    /// It does not land, the answer is an error.
    NotLanded,
    /// It does not land, the answer is "exists" (a 409).
    FakeExists,
    /// The answer is an error, and it lands later, or never.
    Late,
    /// It lands upon another entry. Only in a lying store.
    Overwrote,
}

/// A step of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A writer judges and stages; a compactor stages; the vacuum prepares its fence.
    Stage(u8),
    /// A compactor stages a compaction of the runs alone.
    StageRuns(u8),
    Put(u8, Outcome),
    /// The version is read to learn what happened.
    Read(u8),
    Crash(u8),
    /// A put that was given up lands.
    Lands(u8),
    /// The vacuum goes on by the fence that stands, and the state of the tip.
    Sweep(u8),
    /// The vacuum deletes its next object.
    Delete,
    /// The vacuum is through.
    Rest,
}

impl World {
    fn has(&self, bug: Bug) -> bool {
        self.bugs.contains(&bug)
    }

    fn vacuum(&self) -> u8 {
        self.writers.len() as u8 + self.compactors
    }

    fn writer(&self, who: u8) -> Option<Writer> {
        self.writers.get(usize::from(who)).copied()
    }

    fn finish(&self, who: u8) -> Phase {
        if self.writer(who).is_some() { Phase::Done } else { Phase::Idle }
    }

    /// A put of `sent` had no clear answer.
    fn wait(&self, sent: Arc<Proposal>, exists: bool) -> Phase {
        let told =
            exists && [Bug::ConflictCleansUp, Bug::NoReadBack, Bug::NextVersion].iter().any(|b| self.has(*b));
        Phase::Wait { sent, exists: told }
    }

    /// A writer judges its batch against the tip and stages what survives.
    fn stage_batch(&self, now: &mut Moment, who: u8, writer: Writer) -> Phase {
        if writer.identity == Identity::Batch && now.folded().state.batch(&who.to_string()).unwrap().is_some()
        {
            return Phase::Done;
        }
        let commit = Commit {
            batch: writer.identity == Identity::Batch,
            source: writer.identity == Identity::Source,
            replay_of: None,
            object: None,
            inline: writer.inline,
            read: writer.tokens.count_ones() as u8,
            schema: false,
            before: (0, 0),
        };
        self.judge(now, who, commit, writer.tokens)
    }

    /// R1, R3: judges `tokens` against exactly the entries up to the tip, stages what is not staged yet, and runs
    /// all checks for the next version.
    fn judge(&self, now: &mut Moment, who: u8, mut commit: Commit, tokens: Tokens) -> Phase {
        let folded = Arc::clone(&now.ledger.folded);
        let seen = folded.state.source(who.into()).unwrap().filter(|_| commit.source);
        commit.replay_of = seen.map(|seen| seen.version as u8);
        let rebase = commit.object.is_some();
        let survivors = match commit.replay_of {
            _ if rebase && self.has(Bug::NoRefilter) => tokens,
            Some(_) => 0,
            None => tokens & !folded.index,
        };
        if commit.tokens() != survivors {
            commit.object = (survivors != 0).then(|| now.store(who, survivors, true, !commit.inline));
        }
        commit.schema = folded.state.schema.is_none() && commit.object.is_some();
        let total = folded.state.total;
        commit.before = (total.count as u8, total.sum as u8);
        let proposal = now.propose(who, Kind::Commit(commit));
        match check(&folded.state, &proposal, self.without) {
            _ if rebase && self.has(Bug::NextVersion) => Phase::Hold(proposal),
            Err(Void::BelowFloor(_)) if !self.has(Bug::SkipFence) => Phase::Idle,
            Err(Void::BatchCommitted(_)) if !self.has(Bug::SkipBatch) => Phase::Done,
            Err(Void::BelowFloor(_) | Void::BatchCommitted(_)) | Ok(()) => Phase::Hold(proposal),
            Err(void) => unreachable!("{void}"),
        }
    }

    fn stage_compaction(&self, now: &mut Moment, who: u8, data: bool) -> Phase {
        let folded = Arc::clone(&now.ledger.folded);
        let files = if data { folded.files.clone() } else { vec![] };
        let out = now.store(who, folded.index, data, true);
        let kind = Kind::Compact { files, runs: folded.runs.clone(), inline: folded.inline.clone(), out };
        Phase::Hold(now.propose(who, kind))
    }

    /// Somebody else has the version of `lost`: try the next one, if the checks allow.
    fn rebase(&self, now: &mut Moment, who: u8, lost: &Proposal) -> Phase {
        let kind = match &lost.kind {
            Kind::Commit(commit) if !self.has(Bug::NoRefilterNorSums) => {
                // A commit without survivors has nothing that could be lost.
                return self.judge(now, who, commit.clone(), commit.tokens());
            }
            kind => kind.clone(),
        };
        let proposal = now.propose(who, kind);
        match check(&now.folded().state, &proposal, self.without) {
            Ok(()) => Phase::Hold(proposal),
            Err(Void::NotLive(_)) if self.has(Bug::SkipLiveInputs) => Phase::Hold(proposal),
            Err(_) if self.has(Bug::NoRefilterNorSums) && self.writer(who).is_some() => Phase::Hold(proposal),
            Err(_) => Phase::Idle,
        }
    }

    /// Our bytes were seen in the ledger.
    fn own(&self, now: &Moment, who: u8, version: u8) -> Phase {
        let valid = now.ledger.log[usize::from(version)].1;
        if who == self.vacuum() && valid {
            let until =
                if self.has(Bug::VacuumFromHint) { now.fence_of(version).saturating_sub(1) } else { version };
            let folded = now.ledger.up_to(until, self.without).folded;
            return Phase::Delete(Snapshot { version, folded });
        }
        // What is void had no effect, so it is done again.
        if valid || self.has(Bug::VoidMeansDone) { self.finish(who) } else { Phase::Idle }
    }

    /// R2, R5: what stands in the version decides.
    fn resolve(&self, now: &mut Moment, who: u8, sent: &Arc<Proposal>, exists: bool) -> Phase {
        let writer = self.writer(who).is_some();
        if exists && self.has(Bug::ConflictCleansUp) {
            now.clean_up(sent);
            return Phase::Idle;
        }
        if writer && !exists && self.has(Bug::NextVersion) {
            return self.rebase(now, who, sent);
        }
        let standing = now.ledger.log.get(usize::from(sent.version)).map(|(proposal, _)| proposal.id);
        match standing {
            Some(id) if id == sent.id && !(exists && self.has(Bug::NoReadBack)) => {
                self.own(now, who, sent.version)
            }
            Some(_) => self.rebase(now, who, sent),
            None if writer && self.has(Bug::AbsentMeansDone) => Phase::Done,
            None if writer && self.has(Bug::AbsentMeansFailed) => Phase::Failed(sent.id),
            None if writer && self.has(Bug::AbsentCleansUp) => {
                now.clean_up(sent);
                Phase::Idle
            }
            None if writer && self.has(Bug::OtherBytes) => self.rebase(now, who, sent),
            None => Phase::Hold(Arc::clone(sent)),
        }
    }

    fn put(&self, now: &mut Moment, who: u8, sent: Arc<Proposal>, outcome: Outcome) -> Phase {
        if !matches!(outcome, Outcome::Landed | Outcome::Taken) {
            now.left.faults -= 1;
        }
        match outcome {
            Outcome::Landed | Outcome::AckLost | Outcome::OwnExists => {
                now.ledger.push(Arc::clone(&sent), self.without);
            }
            Outcome::Late => now.late.push(Arc::clone(&sent)),
            Outcome::Overwrote => {
                let version = usize::from(sent.version);
                now.ledger.log[version].0 = Arc::clone(&sent);
                now.ledger = now.ledger.up_to(u8::MAX, self.without);
            }
            Outcome::Taken | Outcome::NotLanded | Outcome::FakeExists => {}
        }
        match outcome {
            Outcome::Landed | Outcome::Overwrote => self.own(now, who, sent.version),
            Outcome::Taken | Outcome::OwnExists | Outcome::FakeExists => self.wait(sent, true),
            Outcome::AckLost | Outcome::NotLanded | Outcome::Late => self.wait(sent, false),
        }
    }

    /// The next object that a vacuum with this snapshot deletes, and whether it is a data file.
    fn next_garbage(&self, now: &Moment, by: &Snapshot) -> Option<(usize, bool)> {
        let folded = if self.has(Bug::VacuumByAge) { now.folded() } else { &by.folded };
        let (floor, oldest) = match now.ledger.log.get(usize::from(by.version)).map(|(fence, _)| &fence.kind)
        {
            _ if self.has(Bug::VacuumByAge) => (u8::MAX, u8::MAX),
            Some(Kind::Fence { floor, oldest }) if self.has(Bug::VacuumFromHint) => (*floor, *oldest),
            _ => (folded.state.floor as u8, folded.state.oldest as u8),
        };
        // A vacuum that follows the rules spares what the versions hold that its fence keeps readable.
        let retained = match self.has(Bug::VacuumForgetsReaders) {
            true => &[],
            false => now.ledger.retained(folded.state.entries as u8, oldest),
        };
        now.stored.iter().enumerate().filter(|(_, stored)| stored.object.stage < floor).find_map(
            |(n, stored)| {
                let object = &stored.object;
                let held = |of: fn(&Folded) -> &Vec<Object>| {
                    of(folded).contains(object)
                        || retained.iter().any(|snapshot| of(snapshot).contains(object))
                };
                let dead_file = stored.file && !held(|folded| &folded.files);
                let dead_run = stored.run && !held(|folded| &folded.runs);
                (dead_file || dead_run).then_some((n, dead_file))
            },
        )
    }
}

impl Moment {
    fn folded(&self) -> &Folded {
        &self.ledger.folded
    }

    fn serial(&mut self, who: u8) -> Id {
        let actor = &mut self.actors[usize::from(who)];
        actor.serial += 1;
        Id { owner: who, serial: actor.serial }
    }

    fn store(&mut self, who: u8, tokens: Tokens, file: bool, run: bool) -> Object {
        let object = Object { stage: self.ledger.next(), id: self.serial(who), tokens };
        self.stored.push(Stored { object, file, run });
        self.stored.sort_unstable();
        object
    }

    fn propose(&mut self, who: u8, kind: Kind) -> Arc<Proposal> {
        let (version, prev) = (self.ledger.next(), self.ledger.tip());
        Arc::new(Proposal { version, prev, id: self.serial(who), kind })
    }

    fn clean_up(&mut self, sent: &Proposal) {
        if let Kind::Commit(Commit { object: Some(object), .. }) | Kind::Compact { out: object, .. } =
            &sent.kind
        {
            self.stored.retain(|stored| stored.object != *object);
        }
    }

    fn fence_of(&self, version: u8) -> u8 {
        match self.ledger.log[usize::from(version)].0.kind {
            Kind::Fence { floor, .. } => floor,
            _ => 0,
        }
    }

    /// A put for a version that is occupied can no longer land, and its order among others means nothing.
    fn settle(&mut self) {
        let next = self.ledger.next();
        self.late.retain(|late| late.version == next);
        self.late.sort_unstable();
    }

    fn live_objects_exist(&self) -> bool {
        self.objects_exist(self.folded())
    }

    /// Whoever reads a version that the last fence keeps readable finds everything it names.
    fn readable_versions_are_whole(&self) -> bool {
        let oldest = usize::try_from(self.folded().state.oldest).unwrap_or(usize::MAX);
        self.ledger.snapshots.iter().skip(oldest).all(|snapshot| self.objects_exist(snapshot))
    }

    fn objects_exist(&self, folded: &Folded) -> bool {
        let has = |object: &Object, of: fn(&Stored) -> bool| {
            self.stored.iter().any(|stored| stored.object == *object && of(stored))
        };
        folded.files.iter().all(|object| has(object, |s| s.file))
            && folded.runs.iter().all(|object| has(object, |s| s.run))
    }

    fn accounting_holds(&self) -> bool {
        let (folded, state) = (self.folded(), &self.folded().state);
        state.rows.is_conserved()
            && state.total == sum_of(folded.committed)
            && state.rows.accepted == state.total.count
            && !folded.batch_twice
    }
}

impl Model for World {
    type State = Moment;
    type Action = Step;

    fn init_states(&self) -> Vec<Moment> {
        let mut ledger = Ledger::default();
        let id = Id { owner: u8::MAX, serial: 0 };
        ledger.push(Arc::new(Proposal { version: 0, prev: None, id, kind: Kind::Create }), None);
        let actors = vec![Actor { phase: Phase::Idle, serial: 0 }; usize::from(self.vacuum()) + 1];
        let left = self.budget;
        vec![Moment { ledger, stored: vec![], actors, late: vec![], left, vacuum_deleted: false }]
    }

    fn actions(&self, now: &Moment, steps: &mut Vec<Step>) {
        for (who, actor) in (0..).zip(&now.actors) {
            let role = (self.writer(who).is_some(), who == self.vacuum());
            match &actor.phase {
                Phase::Idle => match role {
                    (true, _) => steps.push(Step::Stage(who)),
                    (_, true) => {
                        let left = now.left.vacuums > 0;
                        steps.extend(left.then_some(Step::Stage(who)));
                        steps.extend((left && now.folded().state.floor > 0).then_some(Step::Sweep(who)));
                    }
                    _ if now.left.compactions == 0 => {}
                    _ => {
                        let runs = now.folded().runs.len() + now.folded().inline.len() > 1;
                        steps.extend((runs || now.folded().files.len() > 1).then_some(Step::Stage(who)));
                        steps.extend((runs && self.runs_only).then_some(Step::StageRuns(who)));
                    }
                },
                Phase::Hold(sent) if sent.version < now.ledger.next() => {
                    steps.push(Step::Put(who, Outcome::Taken));
                    if self.has(Bug::LyingStore) && now.left.faults > 0 {
                        steps.push(Step::Put(who, Outcome::Overwrote));
                    }
                }
                Phase::Hold(_) => {
                    use Outcome::{AckLost, FakeExists, Landed, Late, NotLanded, OwnExists};
                    steps.push(Step::Put(who, Landed));
                    if now.left.faults > 0 {
                        let faults = [AckLost, OwnExists, NotLanded, FakeExists, Late];
                        steps.extend(faults.map(|outcome| Step::Put(who, outcome)));
                    }
                }
                Phase::Wait { .. } => steps.push(Step::Read(who)),
                Phase::Delete(by) if self.next_garbage(now, by).is_some() => steps.push(Step::Delete),
                Phase::Delete(_) => steps.push(Step::Rest),
                Phase::Done | Phase::Failed(_) => {}
            }
            let busy = !matches!(actor.phase, Phase::Idle | Phase::Done | Phase::Failed(_));
            if busy && now.left.crashes > 0 && (role.0 || self.all_crash) {
                steps.push(Step::Crash(who));
            }
        }
        steps.extend((0..now.late.len() as u8).map(Step::Lands));
    }

    fn next_state(&self, last: &Moment, step: Step) -> Option<Moment> {
        let mut now = last.clone();
        let vacuum = self.vacuum();
        let (who, phase) = match step {
            Step::Stage(who) => (
                who,
                match self.writer(who) {
                    Some(writer) => self.stage_batch(&mut now, who, writer),
                    None if who == vacuum => {
                        now.left.vacuums -= 1;
                        if self.has(Bug::VacuumByAge) {
                            Phase::Delete(Snapshot {
                                version: u8::MAX,
                                folded: Arc::clone(&now.ledger.folded),
                            })
                        } else {
                            let next = now.ledger.next();
                            Phase::Hold(now.propose(who, Kind::Fence { floor: next + 1, oldest: next - 1 }))
                        }
                    }
                    None => {
                        now.left.compactions -= 1;
                        self.stage_compaction(&mut now, who, true)
                    }
                },
            ),
            Step::Sweep(who) => {
                now.left.vacuums -= 1;
                let folded = Arc::clone(&now.ledger.folded);
                (who, Phase::Delete(Snapshot { version: now.ledger.next() - 1, folded }))
            }
            Step::StageRuns(who) => {
                now.left.compactions -= 1;
                (who, self.stage_compaction(&mut now, who, false))
            }
            Step::Put(who, outcome) => {
                let Phase::Hold(sent) = &last.actors[usize::from(who)].phase else { return None };
                (who, self.put(&mut now, who, Arc::clone(sent), outcome))
            }
            Step::Read(who) => {
                let Phase::Wait { sent, exists } = &last.actors[usize::from(who)].phase else { return None };
                (who, self.resolve(&mut now, who, sent, *exists))
            }
            Step::Crash(who) => {
                now.left.crashes -= 1;
                (who, Phase::Idle)
            }
            Step::Lands(which) => {
                let landed = now.late.remove(usize::from(which));
                now.ledger.push(landed, self.without);
                now.settle();
                return Some(now);
            }
            Step::Delete => {
                let Phase::Delete(by) = &last.actors[usize::from(vacuum)].phase else { return None };
                let (n, file) = self.next_garbage(last, by)?;
                now.vacuum_deleted = true;
                let stored = &mut now.stored[n];
                if file {
                    stored.file = false
                } else {
                    stored.run = false
                }
                now.stored.retain(|stored| stored.file || stored.run);
                return Some(now);
            }
            Step::Rest => (vacuum, Phase::Idle),
        };
        now.actors[usize::from(who)].phase = phase;
        now.settle();
        Some(now)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(TOKEN_ONCE, |_, now: &Moment| !now.folded().token_twice),
            Property::always(DONE_IS_COMMITTED, |world: &World, now: &Moment| {
                let done =
                    world.writers.iter().zip(&now.actors).filter(|(_, actor)| actor.phase == Phase::Done);
                done.into_iter().all(|(writer, _)| writer.tokens & !now.folded().committed == 0)
            }),
            Property::always(FAILED_IS_ABSENT, |_, now: &Moment| {
                now.actors.iter().all(|actor| match actor.phase {
                    Phase::Failed(id) => now.ledger.log.iter().all(|(proposal, _)| proposal.id != id),
                    _ => true,
                })
            }),
            Property::always(LIVE_EXISTS, |_, now: &Moment| now.live_objects_exist()),
            Property::always(READABLE_IS_WHOLE, |_, now: &Moment| now.readable_versions_are_whole()),
            Property::always(FILES_EXACT, |_, now: &Moment| {
                union(now.folded().files.iter().map(|file| file.tokens)) == (now.folded().committed, true)
            }),
            Property::always(INDEX_EXACT, |_, now: &Moment| {
                (now.folded().index, now.folded().index_once) == (now.folded().committed, true)
            }),
            Property::always(ACCOUNTING, |_, now: &Moment| now.accounting_holds()),
            Property::always(HONEST_IS_VALID, |world: &World, now: &Moment| {
                !world.bugs.is_empty() || world.without.is_some() || now.folded().voids == 0
            }),
            Property::sometimes(ALL_FINISH, |world: &World, now: &Moment| {
                now.actors.iter().take(world.writers.len()).all(|actor| actor.phase == Phase::Done)
            }),
            Property::sometimes(VACUUM_DELETES, |world: &World, now: &Moment| {
                now.vacuum_deleted || world.budget.vacuums == 0
            }),
            Property::sometimes(COMPACTS, |world: &World, now: &Moment| {
                now.folded().compactions > 0 || world.budget.compactions == 0
            }),
            Property::sometimes(VOID_STANDS, |_, now: &Moment| now.folded().voids > 0),
        ]
    }
}

pub const TOKEN_ONCE: &str = "no token is committed twice";
pub const DONE_IS_COMMITTED: &str = "done implies that every token of the batch is committed";
pub const FAILED_IS_ABSENT: &str = "what was reported as failed never stands in the ledger";
pub const LIVE_EXISTS: &str = "no live object is ever deleted";
pub const READABLE_IS_WHOLE: &str = "every version from the oldest readable one on is whole";
pub const FILES_EXACT: &str = "live data files hold each committed token exactly once";
pub const INDEX_EXACT: &str = "live runs hold exactly the committed tokens";
pub const ACCOUNTING: &str = "rows are conserved, and a batch or source counts once";
pub const HONEST_IS_VALID: &str = "who follows the rules never leaves a void entry";
pub const ALL_FINISH: &str = "all writers finish";
pub const VACUUM_DELETES: &str = "a vacuum deletes something";
pub const COMPACTS: &str = "a compaction is committed";
pub const VOID_STANDS: &str = "a void entry stands in the ledger";
