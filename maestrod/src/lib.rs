//! The directory server: who is here, and who has which content. It never carries file data.

pub mod config;
pub mod directory;
pub mod admission;
pub mod presence;
pub mod profile;
pub mod registry;
