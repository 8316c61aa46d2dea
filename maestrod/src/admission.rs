//! Who may be a peer of this maestro, and what it takes.
//!
//! The decision is pure: it needs the policy, the caller's address, whether the peer is known, and what it shows. Called
//! by the Sync stream, which lets peers in, and by the questions, which only let in those who are.

use std::net::IpAddr;

use crate::config::Policy;

/// The join token, as something to compare with.
#[derive(Debug, Clone)]
pub struct JoinToken(blake3::Hash);

impl JoinToken {
    /// Keeps what is needed to recognize `token`, not the token itself.
    pub fn new(token: &str) -> JoinToken {
        JoinToken(blake3::hash(token.as_bytes()))
    }

    /// What a peer that shows `text` shows.
    pub fn judge(&self, text: &str) -> Shown {
        let text = text.trim();
        if text.is_empty() {
            Shown::Nothing
        // Hashes compare in a time that tells nothing of where they differ.
        } else if blake3::hash(text.as_bytes()) == self.0 {
            Shown::Token
        } else {
            Shown::Wrong
        }
    }
}

/// What a peer shows for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// No token.
    Nothing,
    /// The join token.
    Token,
    /// Another one.
    Wrong,
}

/// A peer that may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    /// It has shown the token, and is not to be asked for it again.
    pub remember: bool,
}

/// Why a peer may not come in, and what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It shows nothing.
    #[error(
        "this maestro admits a new peer by its join token: run `p2pctl join HOST --token TOKEN` on the peer, \
         with the token that `maestrod token` prints on the maestro's machine"
    )]
    NoToken,
    /// It shows a wrong token.
    #[error(
        "this is not the join token of this maestro: run `p2pctl join HOST --token TOKEN` on the peer, \
         with the token that `maestrod token` prints on the maestro's machine"
    )]
    WrongToken,
}

/// Whether a peer at `address` may come in. `known`: it has shown the token before.
///
/// # Errors
///
/// The [`Refusal`] to tell it.
pub fn decide(policy: Policy, address: IpAddr, known: bool, shown: Shown) -> Result<Admitted, Refusal> {
    match (policy, shown) {
        // Remembered under either policy: the administrator may change it later.
        (_, Shown::Token) => Ok(Admitted { remember: !known }),
        (Policy::Open, _) => Ok(Admitted { remember: false }),
        // Whoever runs programs on this machine is trusted by being there, for as long as they are.
        (Policy::Token, _) if known || address.to_canonical().is_loopback() => {
            Ok(Admitted { remember: false })
        }
        (Policy::Token, Shown::Nothing) => Err(Refusal::NoToken),
        (Policy::Token, Shown::Wrong) => Err(Refusal::WrongToken),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ELSEWHERE: &str = "192.0.2.7";

    fn decided(policy: Policy, address: &str, known: bool, shown: Shown) -> Result<Admitted, Refusal> {
        decide(policy, address.parse().unwrap(), known, shown)
    }

    #[test]
    fn a_new_peer_from_elsewhere_needs_the_token_once() {
        let decided = |known, shown| decided(Policy::Token, ELSEWHERE, known, shown);
        assert_eq!(decided(false, Shown::Nothing), Err(Refusal::NoToken));
        assert_eq!(decided(false, Shown::Wrong), Err(Refusal::WrongToken));
        assert_eq!(decided(false, Shown::Token), Ok(Admitted { remember: true }));
        assert_eq!(decided(true, Shown::Nothing), Ok(Admitted { remember: false }));
        assert_eq!(decided(true, Shown::Token), Ok(Admitted { remember: false }));
    }

    #[test]
    fn the_loopback_needs_none_and_is_not_remembered() {
        for address in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            let decided = decided(Policy::Token, address, false, Shown::Nothing);
            assert_eq!(decided, Ok(Admitted { remember: false }), "{address}");
        }
        for address in [ELSEWHERE, "::ffff:192.0.2.7", "fe80::1", "0.0.0.0"] {
            assert!(decided(Policy::Token, address, false, Shown::Nothing).is_err(), "{address}");
        }
    }

    #[test]
    fn an_open_maestro_admits_anyone_and_remembers_who_was_vetted() {
        let decided = |shown| decided(Policy::Open, ELSEWHERE, false, shown);
        assert_eq!(decided(Shown::Nothing), Ok(Admitted { remember: false }));
        assert_eq!(decided(Shown::Wrong), Ok(Admitted { remember: false }));
        assert_eq!(decided(Shown::Token), Ok(Admitted { remember: true }));
    }

    #[test]
    fn tokens_are_compared_whole() {
        let token = JoinToken::new("abcdef");
        assert_eq!(token.judge("abcdef\n"), Shown::Token);
        assert_eq!(token.judge(" "), Shown::Nothing);
        assert_eq!(token.judge("abcde"), Shown::Wrong);
        assert_eq!(token.judge("ABCDEF"), Shown::Wrong);
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        for refusal in [Refusal::NoToken, Refusal::WrongToken] {
            let message = refusal.to_string();
            assert!(message.contains("p2pctl join HOST --token TOKEN"), "{message}");
            assert!(message.contains("maestrod token"), "{message}");
        }
    }
}
