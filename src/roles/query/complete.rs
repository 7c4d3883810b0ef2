//! Whether an answer is complete: a pure function of who was needed and who answered.
//!
//! Static ring: an acknowledged sample lies on W of the RF receivers, so any answer in which at most W - 1 of
//! the receivers are missing has it. Stores hold what nobody else has: each that is needed must answer. Leaves
//! (sidecars, other queriers) are missed or not as the operator and the client choose.
//!
//! Agreed ring: every replica set of every epoch whose data is not in the bucket needs as many answers as an acknowledged
//! sample cannot have missed ([`agreed::State::complete`]).

use agreed::State;

/// What an endpoint is to an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seat {
    /// One of our receivers: a copy of what its peers have. `write_quorum` is W, at least 1.
    Receiver { write_quorum: u32 },
    /// A store gateway whose blocks may be needed.
    Store,
    /// A sidecar, another querier, a receiver of another make.
    Leaf,
    /// Never answered since it was configured: it may be any of the above.
    Unknown,
}

/// One endpoint that was needed for an answer.
#[derive(Clone, Debug)]
pub struct Needed {
    pub address: String,
    pub seat: Seat,
    /// Why it did not answer, or not to the end.
    pub missing: Option<String>,
    /// A receiver that answers, but lost its disk after some of what is asked for was acknowledged.
    pub forgot: bool,
    /// Whom it stands for in the agreed ring, where it is an owner there.
    pub owner: Option<Owner>,
}

/// A receiver of the agreed ring.
#[derive(Clone, Debug)]
pub struct Owner {
    /// Its address in the ring.
    pub name: String,
    /// The log that the answer is of; none before it is known.
    pub log: Option<String>,
}

impl Owner {
    /// An owner that has not been asked yet.
    pub fn named(name: impl Into<String>) -> Owner {
        Owner { name: name.into(), log: None }
    }

    /// It may have lost its disk, and the ring has not heard of that yet.
    fn is_another(&self, agreed: &State) -> bool {
        self.log.as_ref().is_some_and(|log| !agreed.knows_log(&self.name, log))
    }
}

/// What becomes of an incomplete answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tolerance {
    /// Receivers, stores and unknown endpoints may be missing: only if the client asked for it.
    pub partial: bool,
    /// Leaves may be missing.
    pub partial_leaves: bool,
    /// The client chose the endpoints one by one: copies on others do not count.
    pub chosen: bool,
}

/// The judgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    Complete,
    /// Something is missing that may be; each text names one endpoint.
    Partial(Vec<String>),
    /// Something is missing that may not be.
    Incomplete(String),
}

/// Judges an answer by the endpoints it needed, with the ring that was agreed on when it was asked for, where there is one.
pub fn judge(needed: &[Needed], tolerance: Tolerance, agreed: Option<&State>) -> Judgement {
    let missing: Vec<&Needed> =
        needed.iter().filter(|n| n.missing.is_some() || (n.forgot && n.owner.is_none())).collect();
    let is_receiver = |n: &Needed| n.owner.is_none() && matches!(n.seat, Seat::Receiver { .. });
    let receivers = needed.iter().filter(|n| is_receiver(n)).count();
    let receivers_missing = missing.iter().filter(|n| is_receiver(n)).count() as u32;
    // Where receivers disagree about W, the smallest is the one that every acknowledged sample has met.
    let quorum = needed.iter().filter(|n| n.owner.is_none()).filter_map(|n| match n.seat {
        Seat::Receiver { write_quorum } => Some(write_quorum.max(1)),
        _ => None,
    });
    let spare = match tolerance.chosen {
        true => 0,
        false => quorum.min().map_or(0, |w| w - 1),
    };
    let receivers_suffice = receivers_missing <= spare;
    let short = agreed.filter(|_| !tolerance.chosen).and_then(|agreed| {
        let by = |n: &Needed, a: &str| n.owner.as_ref().is_some_and(|o| o.name == a && !o.is_another(agreed));
        let answered = |a: &str| needed.iter().any(|n| n.missing.is_none() && by(n, a));
        agreed.complete(answered).err()
    });
    let (mut warnings, mut errors) = (Vec::new(), Vec::new());
    if let Some(short) = &short {
        let text = format!(
            "of the receivers {}, which have what was acknowledged in ring epoch {}, too few have answered",
            short.set.join(", "),
            short.epoch
        );
        if tolerance.partial { warnings.push(text) } else { errors.push(text) }
    }
    for one in missing {
        let text = describe(one);
        match one.seat {
            Seat::Receiver { .. } if one.owner.is_some() && short.is_none() && !tolerance.chosen => {}
            Seat::Receiver { .. } if one.owner.is_none() && receivers_suffice => {}
            Seat::Leaf if tolerance.partial_leaves => warnings.push(text),
            _ if tolerance.partial => warnings.push(text),
            _ => errors.push(text),
        }
    }
    if !errors.is_empty() {
        let mut message = format!("the answer would be incomplete: {}", errors.join("; "));
        if !receivers_suffice {
            message += &format!(
                " ({receivers_missing} of {receivers} receivers are missing, {spare} may be); \
                 ask with partial_response=true for what there is"
            );
        }
        return Judgement::Incomplete(message);
    }
    if warnings.is_empty() { Judgement::Complete } else { Judgement::Partial(warnings) }
}

fn describe(one: &Needed) -> String {
    let what = match one.seat {
        Seat::Receiver { .. } => "receiver",
        Seat::Store => "store",
        Seat::Leaf => "endpoint",
        Seat::Unknown => "endpoint (never reached yet)",
    };
    let Some(why) = &one.missing else {
        return format!(
            "{what} {} lost its disk and does not have what was acknowledged before",
            one.address
        );
    };
    format!("{what} {} did not answer: {why}", one.address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needed(seat: Seat, n: usize, missing: usize) -> Vec<Needed> {
        let one = |i| Needed {
            address: format!("{seat:?}-{i}"),
            seat,
            missing: (i < missing).then(|| "down".to_owned()),
            forgot: false,
            owner: None,
        };
        (0..n).map(one).collect()
    }

    const STRICT: Tolerance = Tolerance { partial: false, partial_leaves: false, chosen: false };
    const DEFAULT: Tolerance = Tolerance { partial_leaves: true, ..STRICT };
    const ASKED: Tolerance = Tolerance { partial: true, ..DEFAULT };

    /// Every cluster of up to seven receivers at every quorum, with every number missing.
    #[test]
    fn receivers_may_miss_one_less_than_the_write_quorum() {
        for n in 1..=7usize {
            for write_quorum in 1..=n as u32 {
                for missing in 0..=n {
                    let cluster = needed(Seat::Receiver { write_quorum }, n, missing);
                    let suffices = (missing as u32) < write_quorum;
                    for tolerance in [STRICT, DEFAULT] {
                        let judged = judge(&cluster, tolerance, None);
                        assert_eq!(judged == Judgement::Complete, suffices, "{n} {write_quorum} {missing}");
                        assert_eq!(matches!(judged, Judgement::Incomplete(_)), !suffices);
                    }
                    match judge(&cluster, ASKED, None) {
                        Judgement::Complete => assert!(suffices),
                        Judgement::Partial(warnings) => {
                            assert!(!suffices);
                            assert_eq!(warnings.len(), missing);
                        }
                        Judgement::Incomplete(text) => panic!("{text}"),
                    }
                    let chosen = judge(&cluster, Tolerance { chosen: true, ..STRICT }, None);
                    assert_eq!(chosen == Judgement::Complete, missing == 0);
                }
            }
        }
    }

    #[test]
    fn a_receiver_that_lost_its_disk_is_a_missing_one_with_an_answer() {
        let mut cluster = needed(Seat::Receiver { write_quorum: 2 }, 3, 0);
        cluster[2].forgot = true;
        assert_eq!(judge(&cluster, STRICT, None), Judgement::Complete);
        cluster[0].missing = Some("down".to_owned());
        let Judgement::Incomplete(text) = judge(&cluster, DEFAULT, None) else {
            panic!("must be incomplete")
        };
        assert!(text.contains("lost its disk") && text.contains("2 of 3 receivers"), "{text}");
        // Missing and forgetful is still one.
        cluster[2].missing = Some("down".to_owned());
        cluster[0].missing = None;
        assert_eq!(judge(&cluster, STRICT, None), Judgement::Complete);
    }

    #[test]
    fn every_seat_with_every_tolerance() {
        for (seat, tolerance, missing, complete, partial) in [
            (Seat::Store, STRICT, 0, true, false),
            (Seat::Store, STRICT, 1, false, false),
            (Seat::Store, DEFAULT, 1, false, false),
            (Seat::Store, ASKED, 1, false, true),
            (Seat::Leaf, STRICT, 1, false, false),
            (Seat::Leaf, DEFAULT, 1, false, true),
            (Seat::Leaf, ASKED, 2, false, true),
            (Seat::Unknown, STRICT, 1, false, false),
            (Seat::Unknown, DEFAULT, 1, false, false),
            (Seat::Unknown, ASKED, 1, false, true),
        ] {
            let judged = judge(&needed(seat, 3, missing), tolerance, None);
            assert_eq!(judged == Judgement::Complete, complete, "{seat:?} {tolerance:?} {missing}");
            assert_eq!(matches!(judged, Judgement::Partial(_)), partial, "{seat:?} {tolerance:?} {missing}");
        }
        assert_eq!(judge(&[], STRICT, None), Judgement::Complete);
    }

    #[test]
    fn the_smallest_quorum_counts_and_messages_name_who_is_missing() {
        let mut cluster = needed(Seat::Receiver { write_quorum: 3 }, 3, 1);
        cluster.push(Needed {
            address: "new".into(),
            seat: Seat::Receiver { write_quorum: 1 },
            missing: None,
            forgot: false,
            owner: None,
        });
        let Judgement::Incomplete(text) = judge(&cluster, DEFAULT, None) else {
            panic!("must be incomplete")
        };
        assert!(text.contains("receiver Receiver { write_quorum: 3 }-0 did not answer: down"), "{text}");
        assert!(text.contains("1 of 4 receivers are missing, 0 may be"), "{text}");
        // A lost copy that is not needed is no reason for a warning about another endpoint.
        let mut cluster = needed(Seat::Receiver { write_quorum: 2 }, 3, 1);
        cluster.extend(needed(Seat::Leaf, 1, 1));
        let Judgement::Partial(warnings) = judge(&cluster, DEFAULT, None) else { panic!("must be partial") };
        assert_eq!(warnings, ["endpoint Leaf-0 did not answer: down"]);
    }

    /// A ring of three becomes one of five, which have data, while what the three had before is not in the bucket.
    #[test]
    fn owners_are_judged_by_the_agreed_ring_alone() {
        let plan = |members: &[&str]| {
            let text = format!(r#"[{{"endpoints": {members:?}}}]"#);
            agreed::RingPlan { text, replication: 3, quorum: 2, hashmod: false }
        };
        let (three, five) = (["a:1", "b:1", "c:1"], ["a:1", "b:1", "c:1", "d:1", "e:1"]);
        let mut state = State::default();
        let (by, time) = (String::new(), 0);
        let form = agreed::Command::Form { cluster: "c".into(), plan: plan(&three), by: by.clone(), time };
        state.apply(form).unwrap();
        for address in five {
            let node = agreed::Registration {
                address: address.to_owned(),
                incarnation: address.to_owned(),
                cluster: String::new(),
                levels: (1, 1),
                ships: true,
            };
            state.apply(agreed::Command::Register { node, time }).unwrap();
        }
        let force = agreed::Command::Force { plan: plan(&five), lost: Default::default(), by, time };
        state.apply(force).unwrap();
        let asked = |missing: &[&str]| -> Vec<Needed> {
            let one = |address: &&str| Needed {
                address: (*address).to_owned(),
                // What it says of itself does not matter.
                seat: Seat::Receiver { write_quorum: 1 },
                missing: missing.contains(address).then(|| "down".to_owned()),
                forgot: true,
                owner: Some(Owner { name: (*address).to_owned(), log: Some((*address).to_owned()) }),
            };
            five.iter().map(one).collect()
        };
        for one in five {
            assert_eq!(judge(&asked(&[one]), STRICT, Some(&state)), Judgement::Complete, "without {one}");
        }
        let Judgement::Incomplete(text) = judge(&asked(&["a:1", "b:1"]), DEFAULT, Some(&state)) else {
            panic!("the three have lost two");
        };
        assert!(three.iter().all(|one| text.contains(one)) && text.contains("ring epoch 1"), "{text}");
        assert!(!text.contains("lost its disk"), "the ring knows since when each counts: {text}");
        let Judgement::Partial(warnings) = judge(&asked(&["d:1", "e:1"]), ASKED, Some(&state)) else {
            panic!("some set of the five has two of them");
        };
        assert!(warnings.len() == 3 && warnings[0].contains("ring epoch 2"), "{warnings:?}");
        // A new disk behind a name that the ring knows is nobody's, until it has joined.
        let mut reborn = asked(&["a:1"]);
        reborn[1].owner = Some(Owner { name: "b:1".to_owned(), log: Some("another".to_owned()) });
        assert!(matches!(judge(&reborn, STRICT, Some(&state)), Judgement::Incomplete(_)));
        reborn[1].owner = Some(Owner::named("b:1"));
        assert_eq!(judge(&reborn, STRICT, Some(&state)), Judgement::Complete);
        // Who cannot be asked at all has not answered either.
        let without: Vec<Needed> = asked(&[]).split_off(2);
        assert!(matches!(judge(&without, STRICT, Some(&state)), Judgement::Incomplete(_)));
    }
}
