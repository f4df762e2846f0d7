//! Many creates of one name at the same moment, and what may come of it.

use super::checks::Outcome;
use crate::error::Result;
use crate::store::{Put, Store};
use bytes::Bytes;
use futures::future::join_all;

/// What one racer was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Landed,
    Taken,
    Unclear,
}

/// How one race ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Race {
    /// One racer won, and everybody reads what it wrote. So many were left in doubt.
    Fair { unclear: usize },
    /// Nobody won, which conflicts can bring about: it must be run again.
    Void,
    /// What should not be.
    Foul(String),
}

/// Lets all clients create `name` at once.
pub(super) async fn run(
    clients: &[Store],
    name: &str,
    large: bool,
) -> Result<(Vec<Told>, Vec<Option<Bytes>>)> {
    // Every connection is open before the start.
    for warm in join_all(clients.iter().map(|client| client.head(name))).await {
        warm?;
    }
    let puts = clients.iter().enumerate().map(|(racer, client)| client.put_once(name, entry(racer, large)));
    let told = join_all(puts).await.into_iter().map(|put| match put {
        Put::Landed => Ok(Told::Landed),
        Put::Taken => Ok(Told::Taken),
        Put::Unknown(_) => Ok(Told::Unclear),
        // A disk that is full, say, breaks no promise.
        Put::Failed(error) => Err(error),
    });
    let told: Result<Vec<Told>> = told.collect();
    let read: Result<Vec<_>> =
        join_all(clients.iter().map(|client| client.get(name))).await.into_iter().collect();
    Ok((told?, read?))
}

/// What a racer writes. Large ones take longer, so that a store that looks first and writes later is caught.
pub(super) fn entry(racer: usize, large: bool) -> Bytes {
    let mut bytes = format!("racer {racer}").into_bytes();
    if large {
        bytes.resize(bytes.len() + (64 << 10), b'.');
    }
    bytes.into()
}

/// Judges what the racers were `told` and what each of them `read` afterwards.
pub(super) fn judge(told: &[Told], read: &[Option<Bytes>], large: bool) -> Race {
    let landed: Vec<usize> =
        (0..told.len()).filter(|racer| told.get(*racer) == Some(&Told::Landed)).collect();
    let unclear = told.iter().filter(|told| **told == Told::Unclear).count();
    if landed.len() > 1 {
        return Race::Foul(format!(
            "{} of {} racers were told that they had created it",
            landed.len(),
            told.len()
        ));
    }
    let Some(found) = read.first() else { return Race::Void };
    if read.iter().any(|other| other != found) {
        return Race::Foul("the racers read different things afterwards".into());
    }
    match (landed.first(), found) {
        (Some(winner), Some(found)) if *found == entry(*winner, large) => Race::Fair { unclear },
        (Some(_), Some(_)) => Race::Foul("what is read back is not what the winner wrote".into()),
        (Some(_), None) => Race::Foul("the winner's object is absent".into()),
        (None, None) => Race::Void,
        // Its writer was told that the name is taken, or nothing: it finds out by reading.
        (None, Some(found)) if (0..told.len()).any(|racer| *found == entry(racer, large)) => {
            Race::Fair { unclear: unclear + 1 }
        }
        (None, Some(_)) => Race::Foul("what is read back was written by none of them".into()),
    }
}

/// Several races in a row.
pub(super) async fn races(
    clients: &[Store],
    rounds: usize,
    mut name: impl FnMut() -> Result<String>,
) -> Result<Outcome> {
    let (mut unclear, mut run_again) = (0, 0);
    for round in 0..rounds {
        loop {
            let large = round % 2 == 1;
            let (told, read) = run(clients, &name()?, large).await?;
            match judge(&told, &read, large) {
                Race::Fair { unclear: more } => unclear += more,
                Race::Void if run_again < rounds + 3 => {
                    run_again += 1;
                    continue;
                }
                Race::Void => {
                    return Ok(Outcome::Broken("again and again nobody could create a free name".into()));
                }
                Race::Foul(how) => {
                    return Ok(Outcome::Broken(format!("of {} clients at once, {how}", told.len())));
                }
            }
            break;
        }
    }
    let doubts = if unclear == 0 { String::new() } else { format!(", {unclear} answers were unclear") };
    let again =
        if run_again == 0 { String::new() } else { format!(", {run_again} without a winner were run again") };
    Ok(Outcome::Kept(format!("{rounds} × {} clients: one winner each time{doubts}{again}", clients.len())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Told::{Landed, Taken, Unclear};

    fn reads(racer: usize) -> Vec<Option<Bytes>> {
        vec![Some(entry(racer, false)); 3]
    }

    #[test]
    fn a_race_is_fair_only_with_one_winner_whom_everybody_reads() {
        assert_eq!(judge(&[Taken, Landed, Taken], &reads(1), false), Race::Fair { unclear: 0 });
        assert_eq!(judge(&[Unclear, Landed, Taken], &reads(1), false), Race::Fair { unclear: 1 });
        let foul = |told: &[Told], read: &[Option<Bytes>]| matches!(judge(told, read, false), Race::Foul(_));
        assert!(foul(&[Landed, Landed, Taken], &reads(1)));
        assert!(foul(&[Taken, Landed, Taken], &reads(0)));
        assert!(foul(&[Taken, Landed, Taken], &[None, None, None]));
        assert!(foul(&[Taken, Taken, Taken], &vec![Some("stranger".into()); 3]));
        let mut stale = reads(1);
        stale[2] = None;
        assert!(foul(&[Taken, Landed, Taken], &stale));
    }

    #[test]
    fn a_race_whose_winner_was_not_told_is_fair_and_one_without_a_winner_is_run_again() {
        assert_eq!(judge(&[Taken, Taken, Taken], &reads(2), false), Race::Fair { unclear: 1 });
        assert_eq!(judge(&[Taken, Unclear, Taken], &[None, None, None], false), Race::Void);
    }
}
