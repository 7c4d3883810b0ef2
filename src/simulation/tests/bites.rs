//! Each rule bites: with something broken on purpose, a run fails within a thousand seeds, by a rule that is meant to notice; and
//! there is no rule that none of these runs fails by.

use simulation::{Break, Options, RULES, replay, run};

/// The first seed of a thousand that one of the rules `meant` notices, and all that do.
fn find(broken: Break, meant: &[&str]) -> Option<Vec<&'static str>> {
    let mut seeds = (0..1000).filter(|seed| broken.concerns(*seed));
    seeds.find_map(|seed| {
        let report = run(Options { seed, broken: Some(broken), aloud: false });
        let rules: Vec<&str> = report.violations.iter().map(|violation| violation.rule).collect();
        if !rules.iter().any(|rule| meant.contains(rule)) {
            return None;
        }
        println!("{}: seed {seed}, {rules:?}; {}", broken.name(), replay(seed, Some(broken)));
        Some(rules)
    })
}

#[test]
fn whatever_is_broken_is_noticed_and_every_rule_notices_something() {
    let search = |broken: Break| {
        find(broken, broken.caught_by()).unwrap_or_else(|| panic!("{broken:?} goes unnoticed"))
    };
    let noticed: Vec<&str> = std::thread::scope(|scope| {
        let workers: Vec<_> =
            Break::ALL.into_iter().map(|broken| scope.spawn(move || search(broken))).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    // A rule may have been silent where a stricter one spoke first.
    for rule in RULES.into_iter().filter(|rule| !noticed.contains(rule)) {
        let mut breaks = Break::ALL.into_iter().filter(|broken| broken.caught_by().contains(&rule));
        assert!(breaks.any(|broken| find(broken, &[rule]).is_some()), "{rule} notices nothing");
    }
}
