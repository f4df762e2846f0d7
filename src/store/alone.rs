//! Doing without conditional writes: for tables of one writer at a time, on stores that do not keep them.
//!
//! Two writers at once overwrite each other's commits here, and so can a request of a writer that died, if the store
//! carries it out after the next one has begun. Whoever creates such a table has said that neither will happen.

use super::{Inner, Put, Store};
use bytes::Bytes;

impl Store {
    /// This store, for a table that only one writer at a time commits to: [`put_once`](Self::put_once) looks first
    /// and then writes. A local disk needs no such thing and stays as it is.
    pub(crate) fn alone(mut self) -> Self {
        self.alone = matches!(self.inner, Inner::Remote(_));
        self
    }

    pub(super) async fn put_alone(&self, name: &str, bytes: Bytes) -> Put {
        match self.head(name).await {
            Ok(Some(_)) => Put::Taken,
            Ok(None) => match self.put(name, bytes).await {
                Ok(()) => Put::Landed,
                Err(error) => Put::Unknown(error),
            },
            Err(error) => Put::Unknown(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::store::loopback::{Loopback, Mood};

    #[tokio::test]
    async fn without_conditions_a_name_is_taken_once_it_was_seen() {
        for mood in [Mood::IgnoreConditions, Mood::NoConditions, Mood::Honest] {
            let server = Loopback::start();
            server.set(mood);
            let store = Store::open("s3://bucket/table", &server.options()).unwrap().alone();
            assert!(matches!(store.put_once("a", "one".into()).await, Put::Landed), "{mood:?}");
            assert!(matches!(store.put_once("a", "two".into()).await, Put::Taken), "{mood:?}");
            assert_eq!(store.get("a").await.unwrap().unwrap(), "one", "{mood:?}");
        }
    }

    #[tokio::test]
    async fn a_store_that_refuses_conditions_is_told_from_one_that_fails() {
        let server = Loopback::start();
        server.set(Mood::NoConditions);
        let store = Store::open("s3://bucket/table", &server.options()).unwrap();
        let Put::Unknown(Error::Refused(why)) = store.put_once("a", "one".into()).await else { panic!() };
        assert!(why.contains("does not know conditional writes"), "{why}");
        server.set(Mood::Down);
        assert!(matches!(store.put_once("a", "one".into()).await, Put::Unknown(Error::Store { .. })));
        let off = [server.options(), vec![("conditional_put".into(), "disabled".into())]].concat();
        let store = Store::open("s3://bucket/table", &off).unwrap();
        assert!(matches!(store.put_once("a", "one".into()).await, Put::Unknown(Error::Refused(_))));
    }

    #[tokio::test]
    async fn a_local_disk_keeps_its_conditions() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().to_str().unwrap(), &[]).unwrap().alone();
        assert!(!store.alone);
    }
}
