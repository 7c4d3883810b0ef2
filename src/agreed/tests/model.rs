//! Model check of the ring's changes: every interleaving of two changes, writes through a router that is told and one
//! that is not, uploads, a lost disk and the removal of nodes; no acked sample is ever missing from a read that calls
//! itself complete. Each rule is also shown to bite: without it, the checker finds the loss.

use std::collections::BTreeSet;

use agreed::epoch::acked;
use agreed::{Command, EpochNumber, Proposal, Registration, RingPlan, State, View};
use stateright::{Checker, Model, Property};

/// Rules of the data plane that can be left out, to see that they are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Without {
    Nothing,
    /// In a joint epoch, the new ring's quorum alone makes an ack.
    JointQuorum,
    /// A receiver takes writes of every epoch, whatever it promised.
    Refusal,
    /// A verdict given in one epoch counts for the next.
    VerdictPerEpoch,
    /// A node that lost its disk answers as if it had not.
    Incarnations,
    /// A node says that it is clear before it has uploaded.
    Upload,
}

struct Cluster {
    /// Rings, each all of the replica set of the one series; the first is the one to start with.
    rings: Vec<Vec<&'static str>>,
    replication: u8,
    quorum: u8,
    crashes: u8,
    routers: usize,
    without: Without,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    control: State,
    /// Rings proposed so far.
    proposed: usize,
    nodes: Vec<Receiver>,
    /// The last is not told of changes; it finds out when it is refused.
    routers: Vec<Router>,
    bucket: bool,
    crashes: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Receiver {
    address: &'static str,
    /// Stopped and its folder deleted.
    gone: bool,
    disk: u8,
    min_epoch: EpochNumber,
    has: bool,
    /// Uploaded when it took nothing any more of epochs up to this.
    clear: EpochNumber,
}

/// Each has one write to bring home; the sample of both is the same, as that of a retry is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Router {
    epoch: EpochNumber,
    copies: BTreeSet<&'static str>,
    acked: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Propose,
    Ready(usize),
    Promise(usize),
    ReportPromise(usize),
    Upload(usize),
    ReportClear(usize),
    LoseDisk(usize),
    Stop(usize),
    Learn(usize),
    Deliver(usize, usize),
    Ack(usize),
}

fn plan(ring: &[&str], cluster: &Cluster) -> RingPlan {
    let quoted: Vec<String> = ring.iter().map(|a| format!("{a:?}")).collect();
    let text = format!(r#"[{{"endpoints": [{}]}}]"#, quoted.join(", "));
    RingPlan { text, replication: cluster.replication, quorum: cluster.quorum, hashmod: true }
}

fn registration(address: &str, disk: u8) -> Registration {
    Registration {
        address: address.to_owned(),
        incarnation: disk.to_string(),
        cluster: String::new(),
        levels: (1, 1),
        ships: true,
    }
}

impl Receiver {
    fn incarnation(&self) -> String {
        self.disk.to_string()
    }
}

impl World {
    fn view(&self, epoch: EpochNumber) -> Option<&View> {
        self.control.epochs.iter().find(|e| e.number == epoch).map(|e| &e.view)
    }

    fn number(&self) -> EpochNumber {
        self.control.current().map_or(0, |e| e.number)
    }
}

impl Cluster {
    fn acked(&self, view: &View, copies: &BTreeSet<&'static str>) -> bool {
        let has = |a: &&str| copies.contains(*a);
        let set = |ring: &agreed::Placed| ring.members().map(str::to_owned).collect::<Vec<_>>();
        let needed = usize::from(self.quorum);
        match view {
            View::Stable(ring) => {
                acked(&[(&set(ring).iter().map(String::as_str).collect::<Vec<_>>(), needed)], has)
            }
            View::Joint { new, .. } if self.without == Without::JointQuorum => {
                acked(&[(&set(new).iter().map(String::as_str).collect::<Vec<_>>(), needed)], has)
            }
            View::Joint { old, new } => {
                let (old, new) = (set(old), set(new));
                let old: Vec<&str> = old.iter().map(String::as_str).collect();
                let new: Vec<&str> = new.iter().map(String::as_str).collect();
                acked(&[(&old, needed), (&new, needed)], has)
            }
        }
    }

    /// Whether some choice of nodes that answer is called complete and lacks the sample.
    fn lost(&self, world: &World) -> bool {
        if world.bucket || !world.routers.iter().any(|r| r.acked) {
            return false;
        }
        let without: BTreeSet<&str> =
            world.nodes.iter().filter(|n| !n.gone && !n.has).map(|n| n.address).collect();
        // Fewer answers are never more complete, so those who lack it, all together, are the worst case.
        let mut control = world.control.clone();
        if self.without == Without::Incarnations {
            control.nodes.values_mut().for_each(|n| n.joined = 1);
        }
        control.complete(|a| without.contains(a)).is_ok()
    }
}

impl Model for Cluster {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let mut control = State::default();
        let form = Command::Form {
            cluster: "c".to_owned(),
            plan: plan(&self.rings[0], self),
            by: String::new(),
            time: 0,
        };
        control.apply(form).unwrap();
        let all: BTreeSet<&'static str> = self.rings.iter().flatten().copied().collect();
        let nodes: Vec<Receiver> = all
            .into_iter()
            .map(|address| Receiver { address, gone: false, disk: 0, min_epoch: 1, has: false, clear: 0 })
            .collect();
        for node in &nodes {
            control.apply(Command::Register { node: registration(node.address, 0), time: 0 }).unwrap();
        }
        let router = Router { epoch: 1, copies: BTreeSet::new(), acked: false };
        let routers = vec![router; self.routers];
        vec![World { control, proposed: 1, nodes, routers, bucket: false, crashes: 0 }]
    }

    fn actions(&self, world: &World, out: &mut Vec<Step>) {
        if world.proposed < self.rings.len() {
            out.push(Step::Propose);
        }
        for (at, node) in world.nodes.iter().enumerate().filter(|(_, n)| !n.gone) {
            if world.control.warming().contains(&node.address) {
                out.push(Step::Ready(at));
            }
            if node.min_epoch < world.number() {
                out.push(Step::Promise(at));
            }
            let known = world.control.nodes.get(node.address);
            if known.is_some_and(|n| n.min_epoch < node.min_epoch) {
                out.push(Step::ReportPromise(at));
            }
            if node.clear + 1 < node.min_epoch {
                out.push(Step::Upload(at));
            }
            if known.is_some_and(|n| n.clear < node.clear && n.min_epoch > node.clear) {
                out.push(Step::ReportClear(at));
            }
            if world.crashes < self.crashes {
                out.push(Step::LoseDisk(at));
            }
            if world.proposed == self.rings.len() && world.control.needed(node.address).is_none() {
                out.push(Step::Stop(at));
            }
        }
        let told = self.routers - 1;
        let behind =
            world.routers.iter().take(told).enumerate().filter(|(_, r)| r.epoch < world.number() && !r.acked);
        out.extend(behind.map(|(at, _)| Step::Learn(at)));
        for (at, router) in world.routers.iter().enumerate().filter(|(_, r)| !r.acked) {
            let Some(view) = world.view(router.epoch) else { continue };
            for (to, node) in world.nodes.iter().enumerate().filter(|(_, n)| !n.gone) {
                if view.has(node.address) && !router.copies.contains(node.address) {
                    out.push(Step::Deliver(at, to));
                }
            }
            if self.acked(view, &router.copies) {
                out.push(Step::Ack(at));
            }
        }
    }

    fn next_state(&self, last: &World, step: Step) -> Option<World> {
        let mut world = last.clone();
        let number = world.number();
        match step {
            Step::Propose => {
                let ring = world.control.current()?.view.target().plan().text.clone();
                let proposal = Proposal {
                    expect: ring,
                    plan: plan(&self.rings[world.proposed], self),
                    away: BTreeSet::new(),
                    retire: BTreeSet::new(),
                    by: String::new(),
                    time: 0,
                };
                // Refused while another change goes on.
                world.control.apply(Command::Propose(proposal)).ok()?;
                world.proposed += 1;
            }
            Step::Ready(at) => {
                let epoch = world.control.pending.as_ref()?.epoch;
                let address = world.nodes[at].address.to_owned();
                world.control.apply(Command::Ready { address, epoch }).ok()?;
            }
            Step::Promise(at) => world.nodes[at].min_epoch = number,
            Step::ReportPromise(at) => {
                let node = &world.nodes[at];
                let (address, incarnation) = (node.address.to_owned(), node.incarnation());
                let min_epoch = node.min_epoch;
                world.control.apply(Command::Adopted { address, incarnation, min_epoch, time: 0 }).ok()?;
            }
            Step::Upload(at) => {
                world.bucket |= world.nodes[at].has && self.without != Without::Upload;
                world.nodes[at].clear = world.nodes[at].min_epoch - 1;
            }
            Step::ReportClear(at) => {
                let node = &world.nodes[at];
                let (address, incarnation, through) =
                    (node.address.to_owned(), node.incarnation(), node.clear);
                world.control.apply(Command::Clear { address, incarnation, through }).ok()?;
            }
            Step::LoseDisk(at) => {
                world.crashes += 1;
                let node = &mut world.nodes[at];
                (node.disk, node.has, node.clear) = (node.disk + 1, false, 0);
                let again = registration(node.address, node.disk);
                world.control.apply(Command::Register { node: again, time: 0 }).ok()?;
                // It serves nothing before it has taken its place.
                world.nodes[at].min_epoch = world.number();
            }
            Step::Stop(at) => {
                (world.nodes[at].gone, world.nodes[at].has) = (true, false);
            }
            Step::Learn(at) => self.learn(&mut world.routers[at], number),
            Step::Deliver(at, to) => {
                if world.routers[at].epoch < world.nodes[to].min_epoch && self.without != Without::Refusal {
                    self.learn(&mut world.routers[at], number);
                } else {
                    world.nodes[to].has = true;
                    let address = world.nodes[to].address;
                    world.routers[at].copies.insert(address);
                }
            }
            Step::Ack(at) => world.routers[at].acked = true,
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("complete reads have every acked sample", |c: &Cluster, w: &World| !c.lost(w)),
            Property::sometimes("every change ends", |c: &Cluster, w: &World| {
                w.proposed == c.rings.len()
                    && w.control.pending.is_none()
                    && matches!(w.control.current().map(|e| &e.view), Some(View::Stable(_)))
            }),
            Property::sometimes("a write is acked in the middle of a change", |_: &Cluster, w: &World| {
                w.routers.iter().any(|r| r.acked && matches!(w.view(r.epoch), Some(View::Joint { .. })))
            }),
        ]
    }
}

impl Cluster {
    fn learn(&self, router: &mut Router, epoch: EpochNumber) {
        router.epoch = epoch;
        if self.without != Without::VerdictPerEpoch {
            router.copies.clear();
        }
    }
}

const FOUR: [[&str; 3]; 3] = [["a:1", "b:1", "c:1"], ["a:1", "b:1", "d:1"], ["b:1", "c:1", "d:1"]];
const THREE: [[&str; 2]; 3] = [["a:1", "b:1"], ["b:1", "c:1"], ["a:1", "c:1"]];

fn cluster<const N: usize>(
    rings: &[[&'static str; N]],
    replication: u8,
    crashes: u8,
    without: Without,
) -> Cluster {
    let rings = rings.iter().map(|r| r.to_vec()).collect();
    Cluster { rings, replication, quorum: replication / 2 + 1, crashes, routers: 2, without }
}

/// States to look at; the whole space takes hours, so a long run says how many.
fn budget() -> usize {
    std::env::var("RING_MODEL_STATES").ok().and_then(|n| n.parse().ok()).unwrap_or(300_000)
}

fn check(cluster: Cluster, states: usize) -> (Option<String>, usize) {
    let checker = cluster.checker().target_state_count(states).spawn_bfs().join();
    let lost = checker.discovery("complete reads have every acked sample");
    (lost.map(|path| format!("{:?}", path.into_actions())), checker.unique_state_count())
}

#[test]
fn three_nodes_lose_nothing() {
    let (lost, states) = check(cluster(&THREE, 2, 0, Without::Nothing), budget());
    println!("{states} states");
    assert_eq!(lost, None);
}

#[test]
fn four_nodes_and_a_lost_disk_lose_nothing() {
    let (lost, states) = check(cluster(&FOUR, 3, 1, Without::Nothing), budget());
    println!("{states} states");
    assert_eq!(lost, None);
}

/// As little of a cluster as each rule's absence takes to lose a sample.
#[test]
fn every_rule_bites() {
    for (without, rings, crashes, routers) in [
        (Without::JointQuorum, 2, 0, 2),
        (Without::Refusal, 2, 0, 1),
        (Without::VerdictPerEpoch, 1, 1, 1),
        (Without::Incarnations, 1, 1, 1),
        (Without::Upload, 1, 1, 1),
    ] {
        let cluster = Cluster { routers, ..cluster(&FOUR[..rings], 3, crashes, without) };
        let (lost, states) = check(cluster, 3_000_000);
        println!("{without:?}: {states} states: {lost:?}");
        assert!(lost.is_some(), "{without:?} is not needed, or the check is blind");
    }
}
