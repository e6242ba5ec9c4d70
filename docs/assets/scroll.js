// A table or formula that is wider than the page scrolls in a box of its own. As long as it does, the keyboard reaches
// the box, with a name for readers of screens.
(() => {
  const BOXES = ".md-typeset__scrollwrap, div.arithmatex"

  function reach(box) {
    if (box.scrollWidth > box.clientWidth) {
      const name = box.matches(".arithmatex") ? "Formula" : "Table"
      Object.assign(box, { tabIndex: 0, role: "group", ariaLabel: `${name}, scrolls sideways` })
    } else for (const name of ["tabindex", "role", "aria-label"]) box.removeAttribute(name)
  }

  const sizes = new ResizeObserver((entries) => entries.forEach(({ target }) => reach(target)))
  document.fonts.addEventListener("loadingdone", () => document.querySelectorAll(BOXES).forEach(reach))
  document$.subscribe(() => document.querySelectorAll(BOXES).forEach((box) => sizes.observe(box)))
})()
