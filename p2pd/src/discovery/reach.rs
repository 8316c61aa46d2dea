//! Asking a maestro whether others can connect to this peer.

use std::time::Duration;

use p2p_proto::v1::{AddressCheck, CheckReachableRequest};
use tokio::time::timeout;
use tonic::Code;

use super::{Maestros, now_ms};

/// How long the maestro may take: it gives each address five seconds, all at once.
const DEADLINE: Duration = Duration::from_secs(10);

/// What the maestro says of this peer.
#[derive(Debug, Clone, PartialEq)]
pub struct Reach {
    /// How each address of this peer came out.
    pub checks: Vec<AddressCheck>,
    /// The addresses that this peer itself tells others. The maestro adds where it sees the peer.
    pub announced: Vec<String>,
    /// The address from which the maestro sees this peer.
    pub seen: String,
    /// How far this machine's clock is ahead of the maestro's, in milliseconds.
    pub clock_ahead_ms: i64,
    /// Version of the maestro.
    pub version: String,
}

impl Maestros {
    /// Has the maestro connect back.
    ///
    /// # Errors
    /// Why it does not say.
    pub async fn check_reachable(&self) -> Result<Reach, String> {
        let mut directory = self.in_session()?;
        let myself = self.myself();
        let request =
            CheckReachableRequest { addresses: myself.addresses.clone(), grpc_port: myself.grpc_port.into() };
        let began_ms = now_ms();
        match timeout(DEADLINE, directory.check_reachable(request)).await {
            Ok(Ok(answer)) => {
                let answer = answer.into_inner();
                Ok(Reach {
                    checks: answer.checks,
                    announced: myself.addresses.clone(),
                    seen: answer.seen,
                    clock_ahead_ms: ahead(began_ms, answer.now_ms, now_ms()),
                    version: answer.version,
                })
            }
            Ok(Err(status)) if status.code() == Code::Unimplemented => {
                Err("the maestro is of an older release and cannot tell".to_owned())
            }
            Ok(Err(status)) => Err(format!("the maestro does not say: {}", status.message())),
            Err(_) => Err("the maestro does not answer".to_owned()),
        }
    }
}

/// How far this clock is ahead of one that showed `theirs` at a moment between `began` and `ended`. None of the time in
/// between counts as a difference.
fn ahead(began: i64, theirs: i64, ended: i64) -> i64 {
    if theirs < began {
        began - theirs
    } else if theirs > ended {
        ended - theirs
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_that_the_answer_took_is_no_difference() {
        assert_eq!(ahead(1000, 3000, 6000), 0);
        assert_eq!(ahead(1000, 400, 6000), 600);
        assert_eq!(ahead(1000, 9000, 6000), -3000);
    }
}
