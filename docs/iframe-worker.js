/* A browser starts no worker from a file. The search needs one, so a page that is read from a file
   runs it in a hidden frame instead. It answers only what the search of the theme asks of it. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      frame.srcdoc =
        "<script>postMessage = data => frameElement.answer(data)</script>" +
        `<script src="${new URL(url, location)}"></script>`
      frame.answer = data => this.dispatchEvent(new MessageEvent("message", { data }))
      this.frame = new Promise(ready => frame.addEventListener("load", () => ready(frame)))
      const add = () => document.body.append(frame)
      if (document.body) add()
      else addEventListener("DOMContentLoaded", add)
    }

    postMessage(data) {
      this.frame.then(frame =>
        frame.contentWindow.dispatchEvent(new MessageEvent("message", { data }))
      )
    }
  }
}
