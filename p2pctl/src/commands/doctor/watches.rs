//! Whether the kernel may tell the daemon of every change in its shares: watches needed, and watches allowed.

use p2p_proto::control::Watches;
use p2p_proto::diagnosis::Check;

const LIMIT: &str = "/proc/sys/fs/inotify/max_user_watches";

/// How many watches one user of this machine may have.
pub(super) fn allowed() -> Option<u64> {
    std::fs::read_to_string(LIMIT).ok()?.trim().parse().ok()
}

pub(super) fn check(watches: Watches, allowed: Option<u64>) -> Check {
    const NAME: &str = "inotify";
    let Watches { needed, held, short } = watches;
    let raise = |check: Check| {
        // Twice what is needed now, and no less than what the packages set.
        let wanted = needed.saturating_mul(2).max(1 << 20);
        check
            .advise(format!(
                "sudo sysctl fs.inotify.max_user_watches={wanted} fs.inotify.max_user_instances=1024"
            ))
            .advise("for good: the same two lines in /etc/sysctl.d/60-p2pd.conf")
    };
    let limit =
        allowed.map_or_else(|| "a limit that cannot be read".to_owned(), |allowed| allowed.to_string());
    if short {
        let found = format!(
            "the shares need {needed} watches, and p2pd could get {held} ({limit} per user): changes are found late"
        );
        return raise(Check::problem(NAME, found));
    }
    let found = format!("the shares need {needed} watches, and {limit} are allowed");
    match allowed {
        // More than three quarters: the next tree may be too much.
        Some(allowed) if needed > allowed / 4 * 3 => raise(Check::warning(NAME, found)),
        Some(_) => Check::ok(NAME, found),
        None => Check::skipped(NAME, found),
    }
}

/// Where the daemon cannot say how many it needs.
pub(super) fn unneeded(allowed: Option<u64>) -> Check {
    let limit = allowed.map_or_else(|| "an unknown number of".to_owned(), |allowed| allowed.to_string());
    Check::skipped(
        "inotify",
        format!("{limit} watches are allowed; how many are needed p2pd knows while it runs"),
    )
}

#[cfg(test)]
mod tests {
    use p2p_proto::diagnosis::Verdict::{Ok as Well, Problem, Skipped, Warning};

    use super::*;

    #[test]
    fn what_is_needed_is_compared_with_what_is_allowed() {
        let watches = |needed, short| Watches { needed, held: needed.min(100), short };
        assert_eq!(check(watches(10, false), Some(100)).verdict, Well);
        assert_eq!(check(watches(80, false), Some(100)).verdict, Warning);
        assert_eq!(check(watches(10, false), None).verdict, Skipped);
        let short = check(watches(2_000_000, true), Some(100));
        assert_eq!(short.verdict, Problem);
        assert!(short.found.contains("need 2000000") && short.advice[0].contains("max_user_watches=4000000"));
        assert!(allowed().is_some_and(|allowed| allowed > 0));
    }
}
