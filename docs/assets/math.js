// Renders formulas with the KaTeX shipped beside this file, and loads it only on pages that have formulas.
(() => {
  const home = new URL("vendor/katex/", document.currentScript.src)
  let loading

  function load() {
    loading ??= new Promise((resolve, reject) => {
      const style = Object.assign(document.createElement("link"), { rel: "stylesheet", href: new URL("katex.min.css", home) })
      const script = Object.assign(document.createElement("script"), { src: new URL("katex.min.js", home), onload: resolve, onerror: reject })
      document.head.append(style, script)
    })
    return loading
  }

  function render(element) {
    const source = element.textContent.trim()
    const display = source.startsWith("\\[")
    katex.render(source.replace(/^\\[([]|\\[)\]]$/g, ""), element, { displayMode: display, throwOnError: false })
  }

  // document$ is the theme's stream of pages; it also fires after a page is swapped in place.
  document$.subscribe(async () => {
    const formulas = [...document.querySelectorAll(".arithmatex")].filter((e) => !e.querySelector(".katex"))
    if (!formulas.length) return
    await load()
    formulas.forEach(render)
  })
})()
