//! Names and values of labels over all views of a store.

use std::collections::BTreeSet;

use model::{Labels, Matcher, TimeRange};
use storage::{Context, Error, LabelRequest, Listed, Notes};

use super::{StoreBackend, StoreView, shape};

/// What is listed, and over what.
pub(crate) struct Listing {
    pub range: TimeRange,
    pub matchers: Vec<Matcher>,
    pub without: Vec<String>,
    pub limit: usize,
    /// The tenant that the caller names.
    pub tenant: Option<String>,
}

impl Listing {
    /// Each view that can hold something, with the request that is left for it.
    fn views(&self, backend: &dyn StoreBackend) -> Result<Vec<(StoreView, LabelRequest)>, Error> {
        let views = backend.views_for(self.tenant.as_deref(), self.range, &self.matchers)?;
        let keep = |view: StoreView| {
            let matchers = shape::strip_external(&view.labels, &self.matchers)?;
            let request = LabelRequest { range: self.range, matchers, limit: 0 };
            view.range.overlaps(&self.range).then_some((view, request))
        };
        Ok(views.into_iter().filter_map(keep).collect())
    }

    fn cut(&self, found: BTreeSet<String>, mut notes: Notes) -> Listed {
        let mut values: Vec<String> = found.into_iter().collect();
        if self.limit > 0 && values.len() > self.limit {
            values.truncate(self.limit);
            notes.warn("results truncated due to limit");
        }
        Listed { values, notes }
    }

    /// Names over all views, external ones included where the view has series.
    pub(crate) fn names(&self, backend: &dyn StoreBackend, context: &Context) -> Result<Listed, Error> {
        let (mut found, mut notes) = (BTreeSet::new(), Notes::default());
        for (view, request) in self.views(backend)? {
            let listed = view.select.label_names(&request, context)?;
            notes.absorb(listed.notes);
            if !listed.values.is_empty() {
                found.extend(view.labels.iter().map(|(name, _)| name.to_owned()));
            }
            found.extend(listed.values);
        }
        found.retain(|name| !self.without.contains(name));
        Ok(self.cut(found, notes))
    }

    /// Values of `name` over all views; a view's external label is its only value there.
    pub(crate) fn values(
        &self,
        name: &str,
        backend: &dyn StoreBackend,
        context: &Context,
    ) -> Result<Listed, Error> {
        let (mut found, mut notes) = (BTreeSet::new(), Notes::default());
        if self.without.iter().any(|removed| removed == name) {
            return Ok(Listed::default());
        }
        for (view, request) in self.views(backend)? {
            match external_value(&view.labels, name) {
                Some(value) => {
                    let one = LabelRequest { limit: 1, ..request };
                    if !view.select.label_names(&one, context)?.values.is_empty() {
                        found.insert(value.to_owned());
                    }
                }
                None => {
                    let listed = view.select.label_values(name, &request, context)?;
                    notes.absorb(listed.notes);
                    found.extend(listed.values);
                }
            }
        }
        Ok(self.cut(found, notes))
    }
}

fn external_value<'a>(external: &'a Labels, name: &str) -> Option<&'a str> {
    external.get(name)
}
