//! A node together with the aliases that led to it, so that a message names both places.

use crate::config::yaml::{Node, Span, Value};
use std::rc::Rc;

/// A node where the lowering stands.
#[derive(Clone, Debug)]
pub(crate) struct At<'n, 'a> {
    /// The node.
    pub(crate) node: &'n Node<'a>,
    via: Option<Rc<Via>>,
}

#[derive(Debug)]
struct Via {
    at: Span,
    next: Option<Rc<Via>>,
}

impl<'n, 'a> At<'n, 'a> {
    pub(crate) fn root(node: &'n Node<'a>) -> At<'n, 'a> {
        At { node, via: None }
    }

    /// A node below this one.
    pub(crate) fn child(&self, node: &'n Node<'a>) -> At<'n, 'a> {
        let via = match self.node.alias {
            true => Some(Rc::new(Via { at: self.node.at, next: self.via.clone() })),
            false => self.via.clone(),
        };
        At { node, via }
    }

    pub(crate) fn value(&self) -> &'n Value<'a> {
        &self.node.value
    }

    /// The bytes of the value itself, wherever it is.
    pub(crate) fn span(&self) -> Span {
        self.node.value.span
    }

    /// The aliases that led here, the nearest first; a message has room for a few.
    pub(crate) fn uses(&self) -> Vec<Span> {
        let own = self.node.alias.then_some(self.node.at);
        let chain = std::iter::successors(self.via.as_deref(), |via| via.next.as_deref());
        own.into_iter().chain(chain.map(|via| via.at)).take(3).collect()
    }
}
