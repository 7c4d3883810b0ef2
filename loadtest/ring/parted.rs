//! Stories of networks that part: cut without a word or with one, in both directions or in one, with somebody who asks on either
//! side.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::http::{Client, percent};
use crate::ring::net::Net;
use crate::ring::{Stage, hidden};
use crate::verify;

/// How long healing may take until nobody keeps anything for another.
const HEALING: Duration = Duration::from_secs(60);

fn net(stage: &mut Stage) -> Result<&mut Net> {
    stage.cluster.net.as_mut().context("the processes are in no namespaces")
}

/// Lets the trouble last; meanwhile something has to be acknowledged, and an answer that lacks something has to say so.
async fn last(stage: &mut Stage, what: &str, aside: Option<&str>) -> Result<()> {
    let (begun, away, before) = (Instant::now(), stage.pace.away(60), stage.acked());
    let (mut said, mut slowest) = (0, Duration::ZERO);
    while begun.elapsed() < away || stage.acked() == before {
        stage.pause().await;
        if let Some(url) = aside {
            let asked = Instant::now();
            said += u32::from(says_so(stage, url, before).await?);
            slowest = slowest.max(asked.elapsed());
        }
        if begun.elapsed() > away + HEALING {
            stage.broken(format!("nothing is acknowledged {what}"));
            break;
        }
    }
    stage.note(format!("{what} for {:.1?}", begun.elapsed()));
    if aside.is_some() {
        stage.note(format!(
            "who asked on that side was told {said} times that something is missing, after {slowest:.1?} at most"
        ));
    }
    Ok(())
}

/// Asks on the side of the few for what was acknowledged meanwhile: it is an error, or said to be missing. Whether it was.
async fn says_so(stage: &mut Stage, url: &str, before: usize) -> Result<bool> {
    let (workload, mut client) = (stage.flow.workload.clone(), Client::new(url)?);
    let (instance, _) = verify::targets(&workload).swap_remove(0);
    let range = workload.end_ms() - workload.start_ms + 1000;
    let query = format!("count_over_time({{instance=\"{instance}\"}}[{range}ms])");
    let time = workload.end_ms() as f64 / 1000.0;
    let path = format!("/api/v1/query?query={}&time={time:.3}&timeout=2s", percent(&query));
    let (status, body) = client.get(&path).await?;
    let told = status != 200 || String::from_utf8_lossy(&body).contains("\"warnings\"");
    if !told && stage.acked() > before {
        stage.broken("who asks among the few gets an answer that is called complete");
    }
    Ok(told)
}

/// Ends the trouble and waits until nobody keeps anything for another.
async fn heal(stage: &mut Stage, nodes: &[usize]) -> Result<()> {
    const WAITING: &str = "tributary_hints_waiting_samples";
    net(stage)?.heal()?;
    let begun = Instant::now();
    let mut quiet = 0;
    while quiet < 3 {
        let mut waiting = stage.cluster.router_sum(WAITING).await.unwrap_or(0.0);
        for at in nodes {
            waiting += stage.cluster.sum(*at, WAITING).await.unwrap_or(1.0);
        }
        // The gauges are a moment behind; three looks in a row are not.
        quiet = if waiting == 0.0 { quiet + 1 } else { 0 };
        if begun.elapsed() > HEALING {
            stage.broken(format!(
                "{waiting} samples still wait for somebody {HEALING:?} after the network healed"
            ));
            break;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    stage.note(format!("healed; nothing waits for anybody {:.1?} after that", begun.elapsed()));
    // Who sent to others meanwhile comes back.
    stage.flow.home.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    Ok(())
}

/// Receiver 2 and a querier beside it, cut off from all others. Clients reach everybody.
pub async fn one(stage: &mut Stage) -> Result<()> {
    let aside = stage.cluster.start_querier_aside().await?;
    let few = ["receive-2", "query-aside"];
    let net_of = net(stage)?;
    let many = net_of.others(&few);
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    net_of.part(&few, &many)?;
    last(stage, "with receiver 2 cut off, both ways", Some(&aside)).await?;
    heal(stage, &[0, 1, 2]).await?;
    stage.pause().await;

    net(stage)?.swallow(&["receive-2"], &many)?;
    last(stage, "with receiver 2 heard by nobody", None).await?;
    heal(stage, &[0, 1, 2]).await?;
    stage.pause().await;

    net(stage)?.unplug("receive-2")?;
    last(stage, "with the cable of receiver 2 pulled", None).await?;
    net(stage)?.plug("receive-2")?;
    heal(stage, &[0, 1, 2]).await?;
    stage.pause().await;
    Ok(())
}

/// Both receivers of zone a and a querier there, of which one receiver votes.
pub async fn zone(stage: &mut Stage) -> Result<()> {
    let aside = stage.cluster.start_querier_aside().await?;
    let few = ["receive-0", "receive-1", "query-aside"];
    let net_of = net(stage)?;
    let many = net_of.others(&few);
    net_of.part(&few, &many.iter().map(String::as_str).collect::<Vec<_>>())?;
    last(stage, "with zone a cut off", Some(&aside)).await?;
    heal(stage, &[0, 1, 2, 3, 4, 5]).await?;
    stage.pause().await;
    Ok(())
}

/// What was acknowledged is all there when this receiver alone is asked, soon.
pub async fn has_everything(stage: &mut Stage, at: usize) -> Result<()> {
    let url = stage.cluster.start_querier_of(at).await?;
    let begun = Instant::now();
    loop {
        let (workload, ledger) = (stage.flow.workload.clone(), stage.flow.ledger.clone());
        let found = verify::run_alone(workload, ledger, &url, &hidden(), stage.pace.quick).await?;
        if found.lost + found.twice + found.wrong + found.strange == 0 {
            eprintln!("receiver {at}, which was cut off, has everything itself");
            return Ok(());
        }
        if begun.elapsed() > HEALING {
            anyhow::bail!("receiver {at}, which was cut off, lacks something: {found:?}");
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
