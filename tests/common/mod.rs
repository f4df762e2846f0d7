//! What tests of whole behaviours share.

#![allow(dead_code, reason = "every test binary uses its own part")]

pub mod fault;
pub mod seal;
