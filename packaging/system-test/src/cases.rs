//! What is tested: groups of cases, each group on hosts of its own.

use anyhow::Result;

use crate::site::Site;

mod disk;
mod install;
mod people;
mod rest;
mod service;
mod service_failures;
mod units;
mod upgrade;
mod whole;

/// One thing that must be so. Its note is a figure or a remark to be printed.
#[derive(Debug)]
pub(crate) struct Case {
    /// Its name within the group.
    pub(crate) name: &'static str,
    /// Finds out.
    pub(crate) check: fn(&Site<'_>) -> Result<String>,
}

/// Cases that share hosts.
#[derive(Debug)]
pub(crate) struct Group {
    /// Its name, which is not the beginning of another's.
    pub(crate) name: &'static str,
    /// The hosts that are booted for it.
    pub(crate) hosts: &'static [&'static str],
    /// Whether each release has its own outcome.
    pub(crate) each_release: bool,
    /// Whether each case begins where the one before it ended.
    pub(crate) in_order: bool,
    /// What is done before the first case.
    pub(crate) prepare: fn(&Site<'_>) -> Result<()>,
    /// The cases, in the order in which they are run.
    pub(crate) cases: &'static [Case],
}

/// All groups, the slowest first.
pub(crate) const GROUPS: &[&Group] = &[
    &rest::GROUP,
    &units::LINT,
    &service::GROUP,
    &upgrade::GROUP,
    &disk::GROUP,
    &people::GROUP,
    &install::GROUP,
    &units::GROUP,
];

/// A case that has nothing to say beyond being so.
pub(crate) fn so() -> Result<String> {
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_groups_and_cases_apart() {
        for (index, group) in GROUPS.iter().enumerate() {
            // Sites are found by the beginning of their names.
            let others = GROUPS.iter().enumerate().filter(|(other, _)| *other != index);
            assert!(others.clone().all(|(_, other)| !other.name.starts_with(group.name)), "{}", group.name);
            let mut names: Vec<_> = group.cases.iter().map(|case| case.name).collect();
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count, "{}", group.name);
        }
    }
}
