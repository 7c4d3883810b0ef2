//! The roles that run by themselves: each is built, serves, and drains in its own crate.

use std::sync::Arc;

use api::MetricsPage;

use crate::boot::Parts;

/// `tributary receive`.
pub async fn receive(settings: receive::Settings, parts: Parts) -> anyhow::Result<()> {
    let page = page(&parts);
    let Parts { world, shutdown, .. } = parts;
    Ok(receive::serve(settings, world, page, shutdown).await?)
}

/// `tributary query`.
pub async fn query(settings: query::Settings, parts: Parts) -> anyhow::Result<()> {
    let page = page(&parts);
    let Parts { world, shutdown, flags, .. } = parts;
    let query = query::Query::build(settings, &world, page, flags).await?;
    Ok(query.run(shutdown).await?)
}

/// `tributary store`.
pub async fn store(settings: store::Settings, parts: Parts) -> anyhow::Result<()> {
    let page = page(&parts);
    let store = store::Store::build(&settings, &parts.world, page).await?;
    Ok(store.run(parts.shutdown).await?)
}

fn page(parts: &Parts) -> MetricsPage {
    let metrics = parts.metrics.clone();
    Arc::new(move || metrics.render())
}
