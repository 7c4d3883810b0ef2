//! Each rule bites: with something broken on purpose, a run fails within a thousand seeds, by a rule that is meant to notice.

use simulation::{Break, Options, replay, run};

#[test]
fn whatever_is_broken_is_noticed() {
    let find = |broken: Break| {
        let hit = (0..1000).filter(|seed| broken.concerns(*seed)).find_map(|seed| {
            let report = run(Options { seed, broken: Some(broken), aloud: false });
            let meant = broken.caught_by();
            report
                .violations
                .iter()
                .any(|violation| meant.contains(&violation.rule))
                .then_some((seed, report))
        });
        let (seed, report) = hit.unwrap_or_else(|| panic!("{broken:?} goes unnoticed"));
        let rules: Vec<&str> = report.violations.iter().map(|violation| violation.rule).collect();
        println!("{}: seed {seed}, {rules:?}; {}", broken.name(), replay(seed, Some(broken)));
        rules.into_iter().map(str::to_owned).collect::<Vec<String>>()
    };
    let noticed: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> =
            Break::ALL.into_iter().map(|broken| scope.spawn(move || find(broken))).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    for rule in Break::ALL.iter().flat_map(|broken| broken.caught_by()) {
        // Those that stand beside others may stay silent where a stricter one speaks first.
        println!("{rule}: {}", noticed.iter().any(|noticed| noticed == rule));
    }
}
