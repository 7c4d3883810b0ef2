//! What a router that believes in a ring epoch that is over is told: which epoch is, and its ring or rings.

use agreed::{Epoch, EpochNumber, View};
use model::Kind;
use serde::{Deserialize, Serialize};

use crate::Error;

/// An epoch as it is told; the least that is needed to place by it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// Whose ring it is: a ring of another cluster is none.
    pub cluster: String,
    pub number: EpochNumber,
    /// Of what is agreed ([`agreed::State::generation`]).
    #[serde(default)]
    pub generation: Option<u32>,
    pub view: View,
}

impl Told {
    pub fn of(cluster: &str, generation: u32, epoch: &Epoch) -> Told {
        let (cluster, generation) = (cluster.to_owned(), Some(generation));
        Told { cluster, number: epoch.number, generation, view: epoch.view.clone() }
    }

    pub fn encode(&self) -> Vec<u8> {
        // Texts and numbers: there is nothing in it that cannot be written.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Rings are checked and their tables built again: it came from outside.
    pub fn decode(bytes: &[u8]) -> Result<Told, Error> {
        let wrong = |error| {
            let message = "a peer has told of a ring that cannot be read; is it of a later version?";
            Error::with_source(Kind::Invalid, message, error)
        };
        serde_json::from_slice(bytes).map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use agreed::{Placed, RingPlan};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_told_is_understood_and_rubbish_is_refused() {
        let placed = |members: &str| {
            let text = format!(r#"[{{"endpoints": [{members}]}}]"#);
            Placed::try_from(RingPlan { text, replication: 2, quorum: 2, hashmod: false }).unwrap()
        };
        let view = View::Joint { old: placed(r#""a:1", "b:1""#), new: placed(r#""a:1", "c:1""#) };
        let told = Told { cluster: "c".to_owned(), number: 8, generation: Some(3), view };
        let bytes = told.encode();
        assert_eq!(Told::decode(&bytes).unwrap(), told);
        let text = String::from_utf8(bytes).unwrap();
        // As a version of before tells it.
        let older = Told::decode(text.replace("\"generation\":3,", "").as_bytes()).unwrap();
        assert_eq!((older.number, older.generation), (8, None));
        // One copy less than there are, and a ring of one for two copies.
        for bad in [text.replace("c:1", "a:1"), text.replace("\"quorum\":2", "\"quorum\":3"), String::new()] {
            assert_eq!(Told::decode(bad.as_bytes()).unwrap_err().kind, Kind::Invalid, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Told::decode(&bytes);
        }
    }
}
