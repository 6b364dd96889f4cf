// What an app has of its own, for the examples of docs/frontend.md.

export declare const auth: { token(options: { renew: boolean }): Promise<string> };
