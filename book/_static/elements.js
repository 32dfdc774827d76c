// Making elements, and what the address says, for the scripts that stand after this one.
window.xailib = {
  element(tag, attributes, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  },

  // What the reader chose stands behind an anchor, which works from a disk, too: #explore-goose&view=lime-1
  address: {
    read() {
      const [name, ...rest] = location.hash.slice(1).split("&");
      return { name: decodeURIComponent(name), chosen: new URLSearchParams(rest.join("&")) };
    },
    write(name, chosen, how = "replaceState") {
      const said = chosen.toString();
      history[how](null, "", `#${encodeURIComponent(name)}${said && "&"}${said}`);
    },
  },
};
