import {VNode} from "preact";

declare const htm: {
  bind(h: Function): (strings: TemplateStringsArray, ...values: any[]) => VNode;
};
export default htm;
