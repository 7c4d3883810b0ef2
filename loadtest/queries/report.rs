//! The figures of the query run: a table with ratios to the peers, and the targets.

use serde::Serialize;

use super::mix::Same;
use crate::engine::table;

/// What one query cost one server, per repetition.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Cost {
    pub cpu_ms: f64,
    pub wall_ms: f64,
    /// How far the resident memory rose above what was held before.
    pub peak_bytes: u64,
    pub answer_bytes: u64,
    pub repetitions: usize,
}

/// One query on the three servers: ours, Prometheus, VictoriaMetrics.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub name: String,
    pub text: String,
    pub same_as_prometheus: &'static str,
    pub costs: Vec<Cost>,
}

impl Row {
    pub fn new(name: &str, text: &str, same: Same, costs: Vec<Cost>) -> Row {
        let same = match same {
            Same::Bits => "yes",
            Same::Digits => "to 1e-9",
            Same::No => "NO",
        };
        Row { name: name.to_owned(), text: text.to_owned(), same_as_prometheus: same, costs }
    }

    /// Our CPU in parts of another's.
    fn ratio(&self, peer: usize) -> f64 {
        self.costs[0].cpu_ms / self.costs[peer].cpu_ms.max(0.001)
    }

    fn passes(&self) -> bool {
        let cheap = self.costs[0].cpu_ms <= 1.0;
        self.same_as_prometheus != "NO" && (cheap || (self.ratio(1) <= 0.5 && self.ratio(2) <= 1.0))
    }

    pub fn brief(&self) -> String {
        let cpu: Vec<String> = self.costs.iter().map(|c| format!("{:.2}", c.cpu_ms)).collect();
        format!("{}: CPU ms {}; same: {}", self.name, cpu.join(" / "), self.same_as_prometheus)
    }
}

/// A query that may not fit its budget.
#[derive(Clone, Debug, Serialize)]
pub struct LargeQuery {
    pub query: String,
    pub status: u16,
    pub wall_ms: f64,
    pub grown: u64,
    /// The beginning of the answer.
    pub text: String,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Large {
    pub series: usize,
    pub budget: u64,
    pub calls: Vec<(String, Cost)>,
    pub queries: Vec<LargeQuery>,
}

impl Large {
    fn passes(&self, query: &LargeQuery) -> bool {
        matches!(query.status, 200 | 422) && query.grown as f64 <= self.budget as f64 * 1.2
    }
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub series: usize,
    pub hours: u32,
    pub rows: Vec<Row>,
    pub large: Option<Large>,
}

impl Report {
    fn sum(&self, server: usize) -> f64 {
        self.rows.iter().map(|row| row.costs[server].cpu_ms).sum()
    }

    pub fn passed(&self) -> bool {
        let rows = self.rows.iter().all(Row::passes);
        let sums =
            self.rows.is_empty() || (self.sum(0) <= 0.25 * self.sum(1) && self.sum(0) <= 0.4 * self.sum(2));
        let large = self.large.as_ref().is_none_or(|l| {
            l.queries.iter().all(|q| l.passes(q)) && l.calls.iter().all(|(_, cost)| cost.wall_ms < 500.0)
        });
        rows && sums && large
    }

    pub fn markdown(&self) -> String {
        let mut out = String::new();
        if !self.rows.is_empty() {
            out += &format!(
                "`loadtest queries --series {} --hours {}`: the same data in all three, query by query in turn, warm. CPU is user and system\n\
                 time of the server per query; memory is how far RSS rose above what was held. Targets: 0.5 x Prometheus, 1.0 x VictoriaMetrics\n\
                 for each query above 1 ms; the sum 0.25 x and 0.4 x.\n\n",
                self.series, self.hours
            );
            out += &self.table();
        }
        if let Some(large) = &self.large {
            out += &self.large_table(large);
        }
        out
    }

    fn table(&self) -> String {
        let heads = [
            "query",
            "CPU ms",
            "Prometheus",
            "VictoriaMetrics",
            "x Prom",
            "x VM",
            "wall ms",
            "Prometheus",
            "VictoriaMetrics",
            "peak MiB",
            "Prometheus",
            "VictoriaMetrics",
            "same answer",
            "",
        ];
        let mut rows = vec![heads.map(str::to_owned).to_vec()];
        let verdict = |pass: bool| if pass { "pass" } else { "**miss**" }.to_owned();
        for row in &self.rows {
            let mut cells = vec![row.name.clone()];
            cells.extend(row.costs.iter().map(|c| format!("{:.2}", c.cpu_ms)));
            cells.extend([1, 2].map(|peer| format!("{:.2}", row.ratio(peer))));
            cells.extend(row.costs.iter().map(|c| format!("{:.2}", c.wall_ms)));
            cells.extend(row.costs.iter().map(|c| format!("{:.1}", c.peak_bytes as f64 / (1 << 20) as f64)));
            cells.extend([row.same_as_prometheus.to_owned(), verdict(row.passes())]);
            rows.push(cells);
        }
        let (ours, prometheus, victoria) = (self.sum(0), self.sum(1), self.sum(2));
        let mut cells = vec!["sum".to_owned()];
        cells.extend([ours, prometheus, victoria].map(|ms| format!("{ms:.1}")));
        cells.extend([ours / prometheus, ours / victoria].map(|ratio| format!("{ratio:.2}")));
        cells.resize(heads.len() - 1, String::new());
        cells.push(verdict(ours <= 0.25 * prometheus && ours <= 0.4 * victoria));
        rows.push(cells);
        let mut out = table(&rows);
        for row in &self.rows {
            out += &format!("- {}: `{}`\n", row.name, row.text);
        }
        out + "\n"
    }

    fn large_table(&self, large: &Large) -> String {
        let mut rows =
            vec![["request", "status", "wall ms", "RSS grew MiB", "at most", ""].map(str::to_owned).to_vec()];
        let mib = |bytes: u64| format!("{:.1}", bytes as f64 / (1 << 20) as f64);
        let verdict = |pass: bool| if pass { "pass" } else { "**miss**" }.to_owned();
        for (name, cost) in &large.calls {
            rows.push(vec![
                name.clone(),
                "200".to_owned(),
                format!("{:.1}", cost.wall_ms),
                mib(cost.peak_bytes),
                "500 ms".to_owned(),
                verdict(cost.wall_ms < 500.0),
            ]);
        }
        for query in &large.queries {
            rows.push(vec![
                format!("`{}`", query.query.replace('|', "\\|")),
                query.status.to_string(),
                format!("{:.0}", query.wall_ms),
                mib(query.grown),
                format!("{} MiB", mib(large.budget * 12 / 10)),
                verdict(large.passes(query)),
            ]);
        }
        format!("{} series x 2 h, `--query.max-memory=256MiB`:\n\n{}", large.series, table(&rows))
    }
}
